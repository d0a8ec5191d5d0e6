// A client of the GUI's dialect, written from the table of its calls: the life of two recipes with the same ROI names.
using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

[DataContract] class Answer
{
    [DataMember] public string request_id;
    [DataMember] public string recipe_id;
}

[DataContract] class Health : Answer
{
    [DataMember] public string status;
    [DataMember] public string device;
    [DataMember] public string model;
    [DataMember] public string version;
    [DataMember] public string reason;
}

[DataContract] class State : Answer
{
    [DataMember] public string status;
    [DataMember] public bool memory_fitted;
    [DataMember] public bool calib_present;
    [DataMember] public string role_id;
    [DataMember] public string roi_id;
    [DataMember] public string model_key;
}

[DataContract] class Calibration : Answer
{
    [DataMember] public double? threshold;
    [DataMember] public double ok_mean;
    [DataMember] public double ng_mean;
    [DataMember] public int score_percentile;
    [DataMember] public double area_mm2_thr;
    [DataMember] public int n_ok;
    [DataMember] public int n_ng;
}

[DataContract] class Manifest : Answer
{
    [DataMember] public bool memory;
    [DataMember] public Calibration calib;
    [DataMember] public DataSet datasets;
}

[DataContract] class Fit : Answer
{
    [DataMember] public int n_embeddings;
    [DataMember] public int coreset_size;
    [DataMember] public int[] token_shape;
}

[DataContract] class Region
{
    [DataMember] public double x, y, w, h;
    [DataMember] public double[] bbox;
    [DataMember] public double area_px, area_mm2;
}

[DataContract] class Inspection : Answer
{
    [DataMember] public double score;
    [DataMember] public double? threshold;
    [DataMember] public int[] token_shape;
    [DataMember] public string heatmap_png_base64;
    [DataMember] public string decision;
    [DataMember] public Region[] regions;
}

[DataContract] class Item
{
    [DataMember] public string label, filename, heatmap_png_base64, error;
    [DataMember] public double? mm_per_px, score, threshold;
    [DataMember] public Region[] regions;
    [DataMember] public int n_regions;
}

[DataContract] class Evaluation : Answer
{
    [DataMember] public int n_total, n_errors;
    [DataMember] public Item[] items;
}

[DataContract] class Saved : Answer { [DataMember] public string[] saved; }

[DataContract] class Class
{
    [DataMember] public int count;
    [DataMember] public string[] files;
    [DataMember] public Dictionary<string, bool> meta;
}

[DataContract] class Classes { [DataMember] public Class ok, ng; }

[DataContract] class DataSet : Answer { [DataMember] public Classes classes; }

[DataContract] class Meta : Answer
{
    [DataMember] public double mm_per_px;
    [DataMember] public string shape_json, note, filename, label, created_at_utc;
}

[DataContract] class Deleted : Answer { [DataMember] public bool deleted; }

[DataContract] class Cleared : Answer { [DataMember] public int cleared; }

[DataContract] class Detail { [DataMember] public string message, detail; }

[DataContract] class Refusal : Answer { [DataMember] public Detail error; }

class BackendException : Exception
{
    public BackendException(HttpStatusCode status, string text) : base(text) { Status = (int)status; }
    public int Status;
    public bool NeedsFit
    {
        get
        {
            string[] signs = { "memory not found", "run /fit_ok first", "not fitted", "missing fit", "memoria no encontrada" };
            return Status == 400 && signs.Any(Message.ToLowerInvariant().Contains);
        }
    }
    public bool NeedsCalibration { get { return Status == 400 && Message.ToLowerInvariant().Contains("calibration_missing"); } }
}

class Backend
{
    const string Role = "Inspection";
    static readonly HttpClient Quick = new HttpClient { Timeout = TimeSpan.FromSeconds(120) };
    static readonly HttpClient Patient = new HttpClient { Timeout = Timeout.InfiniteTimeSpan };
    readonly string _url, _recipe, _roi;

    public Backend(string url, string recipe, string roi)
    {
        _url = url.TrimEnd('/') + "/";
        _recipe = recipe;
        _roi = roi;
    }

    string Names(params string[] more)
    {
        var query = new List<string> { "role_id=" + Role, "roi_id=" + _roi };
        for (int i = 0; i < more.Length; i += 2) query.Add(more[i] + "=" + Uri.EscapeDataString(more[i + 1]));
        return "?" + string.Join("&", query);
    }

    async Task<HttpResponseMessage> Send(HttpMethod method, string path, HttpContent content, HttpClient client = null)
    {
        var request = new HttpRequestMessage(method, _url + path) { Content = content };
        request.Headers.Add("X-Request-Id", Guid.NewGuid().ToString());
        if (_recipe != null) request.Headers.Add("X-Recipe-Id", _recipe);
        return await (client ?? Quick).SendAsync(request);
    }

    async Task<T> Ask<T>(HttpMethod method, string path, HttpContent content = null, HttpClient client = null)
    {
        HttpResponseMessage reply = await Send(method, path, content, client);
        byte[] body = await reply.Content.ReadAsByteArrayAsync();
        if (!reply.IsSuccessStatusCode)
        {
            Detail error = Read<Refusal>(body).error;
            throw new BackendException(reply.StatusCode, error.message ?? error.detail);
        }
        return Read<T>(body);
    }

    static T Read<T>(byte[] json)
    {
        var settings = new DataContractJsonSerializerSettings { UseSimpleDictionaryFormat = true };
        return (T)new DataContractJsonSerializer(typeof(T), settings).ReadObject(new MemoryStream(json));
    }

    static string Number(double value) { return value.ToString(CultureInfo.InvariantCulture); }

    MultipartFormDataContent Form()
    {
        return new MultipartFormDataContent { { new StringContent(Role), "role_id" }, { new StringContent(_roi), "roi_id" } };
    }

    static HttpContent Image(string path)
    {
        var content = new ByteArrayContent(File.ReadAllBytes(path));
        content.Headers.ContentType = new MediaTypeHeaderValue("image/png");
        return content;
    }

    HttpContent Json(string fields)
    {
        string names = "{\"role_id\":\"" + Role + "\",\"roi_id\":\"" + _roi + "\",\"model_key\":\"" + _roi + "\"," + fields + "}";
        return new StringContent(names, Encoding.UTF8, "application/json");
    }

    public Task<Health> Health() { return Ask<Health>(HttpMethod.Get, "health"); }

    public Task<State> State() { return Ask<State>(HttpMethod.Get, "state" + Names("model_key", _roi)); }

    public Task<Manifest> Manifest() { return Ask<Manifest>(HttpMethod.Get, "manifest" + Names()); }

    public async Task<bool> Has(string path)
    {
        return (await Send(HttpMethod.Options, path, null)).StatusCode != HttpStatusCode.NotFound;
    }

    public Task<Saved> Upload(string label, string[] paths, double mm, string shape)
    {
        var form = Form();
        foreach (string path in paths) form.Add(Image(path), "images", Path.GetFileName(path));
        foreach (string path in paths)
        {
            string escaped = shape.Replace("\"", "\\\"");
            string meta = "{\"mm_per_px\":" + Number(mm) + ",\"shape_json\":\"" + escaped + "\",\"note\":\"" + Path.GetFileName(path) + "\"}";
            form.Add(new StringContent(meta, Encoding.UTF8, "application/json"), "metas");
        }
        return Ask<Saved>(HttpMethod.Post, "datasets/" + label + "/upload", form);
    }

    public Task<DataSet> List() { return Ask<DataSet>(HttpMethod.Get, "datasets/list" + Names()); }

    public async Task<byte[]> Fetch(string label, string name)
    {
        var reply = await Send(HttpMethod.Get, "datasets/file" + Names("label", label, "filename", name), null);
        return await reply.EnsureSuccessStatusCode().Content.ReadAsByteArrayAsync();
    }

    public Task<Meta> Meta(string label, string name)
    {
        return Ask<Meta>(HttpMethod.Get, "datasets/meta" + Names("label", label, "filename", name));
    }

    public Task<Deleted> Delete(string label, string name)
    {
        return Ask<Deleted>(HttpMethod.Delete, "datasets/file" + Names("label", label, "filename", name));
    }

    public Task<Cleared> Clear(string label) { return Ask<Cleared>(HttpMethod.Delete, "datasets/clear" + Names("label", label)); }

    public Task<Fit> FitFromDataSet(double mm, bool everyToken = false)
    {
        var form = Form();
        form.Add(new StringContent(Number(mm)), "mm_per_px");
        form.Add(new StringContent(everyToken ? "true" : "false"), "memory_fit");
        form.Add(new StringContent(_roi), "model_key");
        form.Add(new StringContent("true"), "use_dataset");
        return Ask<Fit>(HttpMethod.Post, "fit_ok", form, Patient);
    }

    public Task<Calibration> CalibrateDataSet(double mm)
    {
        return Ask<Calibration>(HttpMethod.Post, "calibrate_dataset", Json("\"default_mm_per_px\":" + Number(mm)));
    }

    public Task<Calibration> CalibrateNg(double mm, double[] ok)
    {
        string scores = string.Join(",", ok.Select(Number));
        string fields = "\"mm_per_px\":" + Number(mm) + ",\"ok_scores\":[" + scores + "],\"ng_scores\":null,\"area_mm2_thr\":1,\"score_percentile\":99";
        return Ask<Calibration>(HttpMethod.Post, "calibrate_ng", Json(fields));
    }

    public Task<Inspection> Infer(string path, double mm, string shape)
    {
        var form = Form();
        form.Add(new StringContent(Number(mm)), "mm_per_px");
        form.Add(new StringContent(_roi), "model_key");
        form.Add(Image(path), "image", Path.GetFileName(path));
        form.Add(new StringContent(shape, Encoding.UTF8), "shape");
        return Ask<Inspection>(HttpMethod.Post, "infer", form);
    }

    /// Inspects and, where the backend says that it cannot yet, fits or calibrates and asks again.
    public async Task<Inspection> InferWithFlows(string path, double mm, string shape, List<string> flows)
    {
        for (; ; )
        {
            try { return await Infer(path, mm, shape); }
            catch (BackendException error) when (error.NeedsFit && !flows.Contains("fit")) { flows.Add("fit"); }
            catch (BackendException error) when (error.NeedsCalibration && !flows.Contains("calibrate")) { flows.Add("calibrate"); }
            if (flows.Last() == "fit")
            {
                if ((await List()).classes.ok.count < 10) throw new InvalidOperationException("too few OK images");
                await FitFromDataSet(mm);
            }
            else await CalibrateDataSet(mm);
        }
    }

    public Task<Evaluation> InferDataSet(double mm)
    {
        return Ask<Evaluation>(HttpMethod.Post, "infer_dataset", Json("\"include_heatmap\":true,\"default_mm_per_px\":" + Number(mm)));
    }
}

class Program
{
    const double Mm = 0.5;
    const string Shape = "{\"kind\": \"rect\", \"x\": 0, \"y\": 0, \"w\": 96, \"h\": 80}";

    // Arguments: base URL, folder of a recipe for each of two recipes, each with ok/, ng/ and unseen.png.
    static int Main(string[] arguments)
    {
        CultureInfo.DefaultThreadCurrentCulture = new CultureInfo("de-DE");  // a decimal comma
        CultureInfo.CurrentCulture = new CultureInfo("de-DE");
        foreach (string folder in arguments.Skip(1)) Life(arguments[0], folder).GetAwaiter().GetResult();
        return 0;
    }

    static async Task Life(string url, string folder)
    {
        string recipe = Path.GetFileName(folder);
        var backend = new Backend(url, recipe, "inspection-1");
        Action<string, object> say = (name, value) =>
            Console.WriteLine(recipe + " " + name + "=" + Convert.ToString(value, CultureInfo.InvariantCulture));
        string[] ok = Directory.GetFiles(Path.Combine(folder, "ok")).OrderBy(path => path, StringComparer.Ordinal).ToArray();
        string[] ng = Directory.GetFiles(Path.Combine(folder, "ng"));
        string unseen = Path.Combine(folder, "unseen.png");

        Health health = await backend.Health();
        say("health", $"{health.status} {health.device} {health.model} {health.version.Length > 0} {health.reason == null}");
        say("has", $"{await backend.Has("infer_dataset")} {await backend.Has("analyze")}");
        State before = await backend.State();
        say("before", $"{before.memory_fitted} {before.calib_present} {before.recipe_id}");

        Saved saved = await backend.Upload("ok", ok, Mm, Shape);
        DataSet listed = await backend.List();
        say("saved", $"{saved.saved.SequenceEqual(listed.classes.ok.files)} {listed.classes.ok.count} {listed.classes.ng.count}");
        say("meta of all", listed.classes.ok.files.All(name => listed.classes.ok.meta[name]));
        byte[] fetched = await backend.Fetch("ok", saved.saved[1]);
        Meta meta = await backend.Meta("ok", saved.saved[1]);
        say("file", fetched.SequenceEqual(File.ReadAllBytes(ok[1])));
        say("meta", $"{meta.mm_per_px == Mm} {meta.shape_json == Shape} {meta.note} {meta.label} {meta.filename == saved.saved[1]} {meta.created_at_utc.Length > 0}");

        // A sample gets the other label by being deleted and uploaded again.
        bool deleted = (await backend.Delete("ok", saved.saved[0])).deleted;
        Saved moved = await backend.Upload("ng", ok.Take(1).ToArray(), Mm, Shape);
        Classes classes = (await backend.List()).classes;
        say("relabelled", $"{deleted} {moved.saved[0] == classes.ng.files.Single()} {classes.ok.count} {classes.ng.count}");
        say("cleared", (await backend.Clear("ng")).cleared);
        await backend.Upload("ng", ng, Mm, Shape);

        var flows = new List<string>();
        Inspection good = await backend.InferWithFlows(unseen, Mm, Shape, flows);
        say("flows", string.Join(",", flows));
        Inspection bad = await backend.Infer(ng[0], Mm, Shape);
        say("good", $"{good.decision} {good.score <= good.threshold} {good.heatmap_png_base64 == null} {good.regions.Length}");
        say("bad", $"{bad.decision} {bad.score > bad.threshold} {Convert.FromBase64String(bad.heatmap_png_base64)[1]} {bad.regions.Length > 0}");
        say("region", bad.regions[0].bbox.SequenceEqual(new[] { bad.regions[0].x, bad.regions[0].y, bad.regions[0].w, bad.regions[0].h }));
        say("score", good.score.ToString("R", CultureInfo.InvariantCulture));

        Fit fit = await backend.FitFromDataSet(Mm, true);
        say("every token", $"{fit.coreset_size == fit.n_embeddings} {fit.token_shape[0]}");
        Calibration calibration = await backend.CalibrateDataSet(Mm);
        Calibration again = await backend.CalibrateNg(Mm, new[] { 0.25, 0.75 });
        say("calibration", $"{calibration.n_ok} {calibration.n_ng} {calibration.score_percentile} {calibration.threshold == again.threshold} {again.ok_mean == 0.5}");
        State state = await backend.State();
        Manifest manifest = await backend.Manifest();
        say("state", $"{state.memory_fitted} {state.calib_present} {state.roi_id} {state.model_key} {state.recipe_id}");
        say("manifest", $"{manifest.memory} {manifest.calib.threshold == calibration.threshold} {manifest.datasets.classes.ok.count}");

        Evaluation evaluation = await backend.InferDataSet(Mm);
        say("evaluation", $"{evaluation.n_total} {evaluation.n_errors} {evaluation.items.All(item => (item.score > item.threshold) == (item.label == "ng"))}");
        try { await backend.Infer(unseen, 0.25, Shape); }
        catch (BackendException error) { say("other scale", error.Status); }
        say("all cleared", (await backend.Clear("ok")).cleared + (await backend.Clear("ng")).cleared);
    }
}
