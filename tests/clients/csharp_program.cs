using System;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Threading.Tasks;
using Patchcore;

class Program
{
    static int Main(string[] arguments)
    {
        CultureInfo.DefaultThreadCurrentCulture = new CultureInfo("de-DE");  // a decimal comma
        CultureInfo.CurrentCulture = new CultureInfo("de-DE");
        try { Run(arguments).GetAwaiter().GetResult(); }
        catch (GatewayException error)
        {
            string message = error.Message.Replace(": ", "").Trim();
            Console.WriteLine($"GatewayException '{error.Code}' {error.Status} {message}");
        }
        catch (Exception error) when (arguments[0] != "all") { Console.WriteLine(error.GetType().Name); }
        return 0;
    }

    static async Task Run(string[] arguments)
    {
        string url = arguments[1];
        switch (arguments[0])
        {
            case "health":
                using (var client = new PatchcoreClient(url)) Console.WriteLine((await client.HealthAsync()).Status);
                break;
            case "rollback":
                using (var client = new PatchcoreClient(url)) await client.RollbackAsync("a", "b", 1);
                break;
            case "late":
                using (var client = new PatchcoreClient(url) { Timeout = TimeSpan.FromMilliseconds(200) }) await client.HealthAsync();
                break;
            case "key":
                using (var client = new PatchcoreClient(url, "pcg_secret")) await client.HealthAsync();
                break;
            default:
                using (var client = new PatchcoreClient(url)) await All(client, arguments[2], ImageFile.FromFile(arguments[3]));
                break;
        }
    }

    static async Task All(PatchcoreClient client, string folder, ImageFile image)
    {
        var images = Directory.GetFiles(folder).OrderBy(path => path, StringComparer.Ordinal).Select(ImageFile.FromFile);
        var fit = await client.FitOkAsync("csharp", "own", images, 0.2);
        var options = new FitOptions { Seed = 4000000000, CoresetRate = 0.05 };
        var seeded = await client.FitOkAsync("csharp", "seeded", images.Take(1), 0.2, options);
        Say("fit", $"{fit.NOkTotal} {fit.Version} 64-bit seed {seeded.Seed}");
        var calibration = await client.CalibrateNgAsync(new CalibrateRequest("csharp", "own", 0.2) { FalseAlarmRate = 0.05 });
        Say("threshold", calibration.Threshold);
        var answer = await client.InferAsync("csharp", "own", image, 0.2);
        Say("score", answer.Score);
        Say("verdict", $"{answer.IsNg} {answer.IsOk} {answer.Verdict}");
        Say("heatmap", string.Concat(answer.HeatmapPng.Take(4).Select(each => each.ToString("X2"))));
        Say("regions", answer.Regions.Length);
        Say("contour", "[" + string.Join(",", answer.Regions[0].Contour[0]) + "]");
        var round = new InferOptions { Shape = Shape.Circle(150), Heatmap = "none" };
        var shaped = await client.InferAsync("csharp", "own", image, 0.2, round);
        Say("shaped", shaped.Score);
        Say("corner", Shape.RectAt(0, 0.5, 2, 1).ToJson());
        var batch = await client.InferBatchAsync(new[] { "own", "never" }.Select(id => new BatchItem("csharp", id, image, 0.2)));
        Say("batch", $"{batch[0].Answer.Verdict} {batch[1].Error.Code}");
        try { await client.InferAsync("csharp", "never", image, 0.2); }
        catch (GatewayException error)
        {
            Say("refused", $"{error.Code} {error.Status} {error.RequestId.Length} {error.Hint.Length > 0}");
        }
        var roi = await client.GetRoiAsync("csharp", "own");
        Say("roi", $"{roi.Images.Length} {roi.Images[0].FileName} {roi.Versions.Length}");
        var meta = new StoreOptions { Metas = new[] { "{\"line\": 3}" } };
        var stored = await client.StoreImagesAsync("csharp", "own", new[] { image }, "ng", meta);
        Say("stored", $"{stored.NAdded} {stored.NNg}");
        await Images(client, stored.Images[0].Id, image);
        await Figures(client);
        Say("rolled back", (await client.RollbackAsync("csharp", "own", 1)).Version);
        var health = await client.HealthAsync();
        Say("health", $"{health.Status} {health.ModelWeights} {await client.IsReadyAsync()}");
        client.RecipeId = "Ausführung";
        Say("recipe", (await client.FitOkAsync("csharp", "own", images.Take(1), 0.2)).RecipeId);
        client.RecipeId = null;
        Say("deleted", (await client.DeleteRoiAsync("csharp", "own")).Deleted);
    }

    static async Task Images(PatchcoreClient client, string id, ImageFile image)
    {
        var page = await client.ListImagesAsync("csharp", "own", "ok", offset: 4, limit: 10);
        Say("listed", $"{page.NOk} {page.NNg} {page.Total} {page.Images.Length} {page.Images[0].FileName}");
        Say("file", (await client.GetImageAsync("csharp", "own", id)).SequenceEqual(image.Content));
        byte[] thumbnail = await client.GetThumbnailAsync("csharp", "own", id);
        Say("thumbnail", $"{thumbnail[0]:X2}{thumbnail[1]:X2}");
        Say("metadata", await client.GetImageMetadataAsync("csharp", "own", id));
        Say("relabelled", (await client.RelabelImageAsync("csharp", "own", id, "ok")).Label);
        Say("deleted image", (await client.DeleteImageAsync("csharp", "own", id)).Deleted);
        await client.StoreImagesAsync("csharp", "own", new[] { image }, "ng");
        Say("deleted images", (await client.DeleteImagesAsync("csharp", "own", "ng")).Deleted);
    }

    static async Task Figures(PatchcoreClient client)
    {
        var drift = await client.DriftAsync("csharp", "own");
        Say("drift", $"{drift.N} {drift.Ks == null} {drift.Alarms.Length}");
        var report = await client.ReportAsync("csharp", "own");
        Say("report", $"{report.Roi.NOkTotal} {report.Bank.TokenHw.Length} {report.Audit.Length > 0}");
        Say("page", (await client.ReportPageAsync("csharp", "own")).StartsWith("<!doctype html>"));
        var audit = await client.AuditAsync("csharp", "own", 2);
        Say("audit", string.Join(" ", audit.Entries.Select(entry => entry.Action)));
    }

    static void Say(string name, object value)
    {
        string text = value is double ? ((double)value).ToString("R", CultureInfo.InvariantCulture) : value.ToString();
        Console.WriteLine(name + "=" + text);
    }
}
