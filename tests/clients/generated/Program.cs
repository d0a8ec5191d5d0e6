using System;
using System.Globalization;
using System.IO;
using System.Linq;
using Patchcore.Api;
using Patchcore.Client;
using Patchcore.Model;

class Program
{
    static FileParameter Image(string path) { return new FileParameter(Path.GetFileName(path), File.OpenRead(path)); }

    static void Main(string[] arguments)
    {
        CultureInfo.CurrentCulture = new CultureInfo("de-DE");  // a decimal comma, as on the machines of many users
        var configuration = new Configuration { BasePath = arguments[0] };
        var teach = new TeachApi(configuration);
        var inspect = new InspectApi(configuration);
        var images = Directory.GetFiles(arguments[1]).OrderBy(path => path).Select(Image).ToList();
        var fit = teach.FitOk("generated", "csharp", 0.2, images: images);
        var calibration = teach.CalibrateNg(new CalibrateRequest(roleId: "generated", roiId: "csharp", mmPerPx: 0.2));
        var answer = inspect.Infer("generated", "csharp", 0.2, Image(arguments[2]), heatmap: HeatmapMode.None);
        var item = "{\"role_id\": \"generated\", \"roi_id\": \"{0}\", \"mm_per_px\": 0.2}";
        var items = "[" + item.Replace("{0}", "csharp") + "," + item.Replace("{0}", "never") + "]";
        var batch = inspect.InferBatch(items, new[] { Image(arguments[2]), Image(arguments[2]) }.ToList());
        string refused = "";
        try { inspect.Infer("generated", "never", 0.2, Image(arguments[2])); }
        catch (ApiException error) { refused = error.ErrorCode + ""; }
        var invariant = CultureInfo.InvariantCulture;
        Console.WriteLine(string.Join(" ", new object[] {
            fit.NOkTotal, calibration.Threshold.ToString("R", invariant), answer.Score.ToString("R", invariant),
            answer.Verdict == Verdict.Ng ? "ng" : "other", batch.Results[0].Verdict == Verdict.Ng ? "ng" : "other",
            batch.Results[1].Error.Code, refused }));
    }
}
