// Client of the PatchCore gateway: visual inspection that learns from good parts only.
//
// One file for .NET Standard 2.0 and newer, .NET Framework 4.6.1 and newer, and Mono: copy it into your project.
// It needs System.Net.Http, and reads JSON with DataContractJsonSerializer (System.Runtime.Serialization), which is
// part of all of them. On .NET Framework, add references to both assemblies. C# 7.1 or newer.
//
//     using (var client = new PatchcoreClient("http://vision:8080", key))
//     {
//         await client.FitOkAsync("housing", "face", Directory.GetFiles("good").Select(ImageFile.FromFile), 0.2);
//         await client.CalibrateNgAsync(new CalibrateRequest("housing", "face", 0.2) { FalseAlarmRate = 0.05 });
//         InferAnswer result = await client.InferAsync("housing", "face", ImageFile.FromFile("part.png"), 0.2);
//         if (result.IsNg) { /* result.Regions, result.HeatmapPng */ }
//     }

using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

namespace Patchcore
{
    /// <summary>A client of one gateway. Its methods may be called from several threads at once, and from a WPF dispatcher.</summary>
    /// <remarks>
    /// Every method throws <see cref="GatewayException"/> where the gateway refuses, <see cref="HttpRequestException"/> where
    /// it cannot be reached, and <see cref="TimeoutException"/> where it does not answer within <see cref="Timeout"/>.
    /// A refusal by 429 or 503 is sent again, at most <see cref="Attempts"/> times, as its Retry-After asks. An inspection and
    /// what only reads is also sent again after a broken connection.
    /// </remarks>
    public sealed class PatchcoreClient : IDisposable
    {
        private readonly HttpClient _http;
        private readonly string _url;
        private readonly string _key;

        /// <summary>Makes a client. It connects with the first request.</summary>
        /// <param name="url">Address of the gateway; else the environment variable PATCHCORE_URL, else http://127.0.0.1:8080.</param>
        /// <param name="key">API key; else the environment variable PATCHCORE_KEY, else none.</param>
        /// <param name="handler">Handler of the connections, for a proxy or for certificates. The client disposes it.</param>
        /// <exception cref="ArgumentException">The address is no http or https address.</exception>
        public PatchcoreClient(string url = null, string key = null, HttpMessageHandler handler = null)
        {
            string given = First(url, Environment.GetEnvironmentVariable("PATCHCORE_URL"), "http://127.0.0.1:8080");
            _url = given.Trim().TrimEnd('/');
            Uri address;
            if (!Uri.TryCreate(_url, UriKind.Absolute, out address) || !address.Scheme.StartsWith("http", StringComparison.Ordinal))
                throw new ArgumentException($"'{given}': expected the address of a gateway, such as http://127.0.0.1:8080", nameof(url));
            _key = First(key, Environment.GetEnvironmentVariable("PATCHCORE_KEY")).Trim();
            // A redirection could lead to another host, with the key.
            _http = new HttpClient(handler ?? new HttpClientHandler { AllowAutoRedirect = false });
            _http.Timeout = System.Threading.Timeout.InfiniteTimeSpan;
        }

        /// <summary>Longest wait for an answer. By default 60 s.</summary>
        public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(60);

        /// <summary>Longest wait for the answer to what learns or stores images. By default 30 min.</summary>
        public TimeSpan FitTimeout { get; set; } = TimeSpan.FromMinutes(30);

        /// <summary>Times that a request is sent at most. By default 4; 1 repeats nothing.</summary>
        public int Attempts { get; set; } = 4;

        /// <summary>Longest wait before a request is sent again. An answer that asks for a longer one is thrown at once.</summary>
        public TimeSpan LongestWait { get; set; } = TimeSpan.FromSeconds(30);

        /// <summary>The recipe, a variant of the product, that every request is about. Null for the default recipe.</summary>
        public string RecipeId { get; set; }

        /// <summary>Closes the connections.</summary>
        public void Dispose() { _http.Dispose(); }

        /// <summary>Inspects one image.</summary>
        /// <param name="roleId">Part or station.</param>
        /// <param name="roiId">Region of the part.</param>
        /// <param name="image">The image: PNG, JPEG, BMP or TIFF.</param>
        /// <param name="mmPerPx">Millimetres per pixel of the image.</param>
        /// <param name="options">Optional fields; null for those of the calibration and the settings.</param>
        /// <param name="cancel">Ends the request.</param>
        public Task<InferAnswer> InferAsync(
            string roleId, string roiId, ImageFile image, double mmPerPx, InferOptions options = null,
            CancellationToken cancel = default)
        {
            options = options ?? new InferOptions();
            var form = new Form(roleId, roiId, mmPerPx)
                .Text("shape", options.Shape?.ToJson()).Number("bit_depth", options.BitDepth).Number("k", options.K)
                .Number("p_score", options.PScore).Number("blur_sigma", options.BlurSigma)
                .Number("area_mm2_thr", options.AreaMm2Thr).Text("heatmap", options.Heatmap).Flag("explain", options.Explain)
                .File("image", image);
            return SendAsync<InferAnswer>(HttpMethod.Post, "/infer", form.Content, Timeout, true, cancel);
        }

        /// <summary>Inspects several images, each with its own ROI and parameters, in one batch of the network.</summary>
        /// <returns>For each item, in their order, an inspection or the error of that image, which is not thrown.</returns>
        public async Task<IReadOnlyList<BatchResult>> InferBatchAsync(IEnumerable<BatchItem> items, CancellationToken cancel = default)
        {
            BatchItem[] all = items.ToArray();
            var form = new Form().Text("items", Json.Write(all));
            foreach (BatchItem item in all) form.File("images", item.Image);
            Task<BatchAnswers> sent = SendAsync<BatchAnswers>(HttpMethod.Post, "/infer_batch", form.Content, Timeout, true, cancel);
            BatchAnswers answer = await sent.ConfigureAwait(false);
            return answer.Results.Select(each => new BatchResult(each)).ToArray();
        }

        /// <summary>Adds OK images to an ROI, and rebuilds its memory bank from the whole set.</summary>
        /// <param name="roleId">Part or station.</param>
        /// <param name="roiId">Region of the part.</param>
        /// <param name="images">
        /// The images. One that the ROI has learned already counts once. Without any, the stored OK images are learned.
        /// </param>
        /// <param name="mmPerPx">Millimetres per pixel of the images.</param>
        /// <param name="options">Optional fields; null for those of the ROI.</param>
        /// <param name="cancel">Ends the request.</param>
        public Task<FitAnswer> FitOkAsync(
            string roleId, string roiId, IEnumerable<ImageFile> images, double mmPerPx, FitOptions options = null,
            CancellationToken cancel = default)
        {
            options = options ?? new FitOptions();
            var form = new Form(roleId, roiId, mmPerPx)
                .Text("shape", options.Shape?.ToJson()).Number("coreset_rate", options.CoresetRate).Number("seed", options.Seed)
                .Text("spatial_weights", options.SpatialWeights).Number("bit_depth", options.BitDepth)
                .Text("tiles", options.Tiles).Flag("exclude_suspects", options.ExcludeSuspects);
            foreach (ImageFile image in images) form.File("images", image);
            return SendAsync<FitAnswer>(HttpMethod.Post, "/fit_ok", form.Content, FitTimeout, false, cancel);
        }

        /// <summary>Computes and stores the thresholds of an ROI.</summary>
        public Task<CalibrateAnswer> CalibrateNgAsync(CalibrateRequest request, CancellationToken cancel = default)
        {
            return SendAsync<CalibrateAnswer>(HttpMethod.Post, "/calibrate_ng", JsonBody(Json.Write(request)), Timeout, false, cancel);
        }

        /// <summary>Removes one OK image, and rebuilds the memory bank without it.</summary>
        public Task<FitAnswer> DeleteOkImageAsync(string roleId, string roiId, string sha256, CancellationToken cancel = default)
        {
            return SendAsync<FitAnswer>(HttpMethod.Delete, RoiPath(roleId, roiId, "ok", sha256), null, FitTimeout, false, cancel);
        }

        /// <summary>Uses a kept version again, with the threshold that it had.</summary>
        public Task<RollbackAnswer> RollbackAsync(string roleId, string roiId, int version, CancellationToken cancel = default)
        {
            string body = "{\"version\":" + version.ToString(CultureInfo.InvariantCulture) + "}";
            return SendAsync<RollbackAnswer>(HttpMethod.Post, RoiPath(roleId, roiId, "rollback"), JsonBody(body), Timeout, false, cancel);
        }

        /// <summary>Deletes an ROI with its OK images, versions and calibration.</summary>
        public Task<DeletedAnswer> DeleteRoiAsync(string roleId, string roiId, CancellationToken cancel = default)
        {
            return SendAsync<DeletedAnswer>(HttpMethod.Delete, RoiPath(roleId, roiId), null, Timeout, false, cancel);
        }

        /// <summary>Stores images with a label. A fit without images learns those labelled ok.</summary>
        /// <param name="roleId">Part or station.</param>
        /// <param name="roiId">Region of the part.</param>
        /// <param name="images">The images.</param>
        /// <param name="label">"ok" or "ng".</param>
        /// <param name="options">Optional fields.</param>
        /// <param name="cancel">Ends the request.</param>
        public Task<StoredAnswer> StoreImagesAsync(
            string roleId, string roiId, IEnumerable<ImageFile> images, string label, StoreOptions options = null,
            CancellationToken cancel = default)
        {
            options = options ?? new StoreOptions();
            var form = new Form().Text("label", label).Text("shape", options.Shape?.ToJson()).Number("bit_depth", options.BitDepth);
            foreach (string meta in options.Metas ?? new string[0]) form.Text("metas", meta ?? "");
            foreach (ImageFile image in images) form.File("images", image);
            return SendAsync<StoredAnswer>(HttpMethod.Post, RoiPath(roleId, roiId, "images"), form.Content, FitTimeout, false, cancel);
        }

        /// <summary>Lists the images of an ROI, oldest first: the stored ones, and the OK images that only a fit brought.</summary>
        /// <param name="roleId">Part or station.</param>
        /// <param name="roiId">Region of the part.</param>
        /// <param name="label">"ok" or "ng"; null for both.</param>
        /// <param name="offset">Number of images to skip.</param>
        /// <param name="limit">Largest number of images to return, at most 1000. <see cref="ImageList.Total"/> counts them all.</param>
        /// <param name="cancel">Ends the request.</param>
        public Task<ImageList> ListImagesAsync(
            string roleId, string roiId, string label = null, int offset = 0, int limit = 100, CancellationToken cancel = default)
        {
            var query = new Query().Text("label", label).Number("offset", offset).Number("limit", limit);
            return SendAsync<ImageList>(HttpMethod.Get, RoiPath(roleId, roiId, "images") + query, null, Timeout, true, cancel);
        }

        /// <summary>Returns the file of an image, as it was sent.</summary>
        public Task<byte[]> GetImageAsync(string roleId, string roiId, string imageId, CancellationToken cancel = default)
        {
            return SendAsync<byte[]>(HttpMethod.Get, RoiPath(roleId, roiId, "images", imageId), null, Timeout, true, cancel);
        }

        /// <summary>Returns a JPEG file of at most 192 pixels a side.</summary>
        public Task<byte[]> GetThumbnailAsync(string roleId, string roiId, string imageId, CancellationToken cancel = default)
        {
            string path = RoiPath(roleId, roiId, "images", imageId, "thumbnail");
            return SendAsync<byte[]>(HttpMethod.Get, path, null, Timeout, true, cancel);
        }

        /// <summary>Returns the JSON that came with an image, as text; "null" if none came.</summary>
        public Task<string> GetImageMetadataAsync(string roleId, string roiId, string imageId, CancellationToken cancel = default)
        {
            string path = RoiPath(roleId, roiId, "images", imageId, "metadata");
            return SendAsync<string>(HttpMethod.Get, path, null, Timeout, true, cancel);
        }

        /// <summary>Changes the label of an image. The next fit takes it over.</summary>
        /// <param name="roleId">Part or station.</param>
        /// <param name="roiId">Region of the part.</param>
        /// <param name="imageId">Id of the image.</param>
        /// <param name="label">"ok" or "ng".</param>
        /// <param name="cancel">Ends the request.</param>
        public Task<ImageAnswer> RelabelImageAsync(
            string roleId, string roiId, string imageId, string label, CancellationToken cancel = default)
        {
            Func<HttpContent> body = JsonBody(Json.Write(new Relabelling { Label = label }));
            return SendAsync<ImageAnswer>(
                new HttpMethod("PATCH"), RoiPath(roleId, roiId, "images", imageId), body, Timeout, false, cancel);
        }

        /// <summary>Deletes an image. The next fit removes it from the memory bank.</summary>
        public Task<ImageDeleted> DeleteImageAsync(string roleId, string roiId, string imageId, CancellationToken cancel = default)
        {
            string path = RoiPath(roleId, roiId, "images", imageId);
            return SendAsync<ImageDeleted>(HttpMethod.Delete, path, null, Timeout, false, cancel);
        }

        /// <summary>Deletes all images with a label, "ok" or "ng". The next fit removes them from the memory bank.</summary>
        public Task<ImagesDeleted> DeleteImagesAsync(string roleId, string roiId, string label, CancellationToken cancel = default)
        {
            string path = RoiPath(roleId, roiId, "images") + new Query().Text("label", label);
            return SendAsync<ImagesDeleted>(HttpMethod.Delete, path, null, Timeout, false, cancel);
        }

        /// <summary>Returns the changes of an ROI, newest first.</summary>
        /// <param name="roleId">Part or station.</param>
        /// <param name="roiId">Region of the part.</param>
        /// <param name="limit">Largest number of changes to return.</param>
        /// <param name="cancel">Ends the request.</param>
        public Task<AuditAnswer> AuditAsync(string roleId, string roiId, int limit = 100, CancellationToken cancel = default)
        {
            string path = RoiPath(roleId, roiId, "audit") + new Query().Number("limit", limit);
            return SendAsync<AuditAnswer>(HttpMethod.Get, path, null, Timeout, true, cancel);
        }

        /// <summary>Compares recent inspections with the OK images.</summary>
        public Task<DriftAnswer> DriftAsync(string roleId, string roiId, CancellationToken cancel = default)
        {
            return SendAsync<DriftAnswer>(HttpMethod.Get, RoiPath(roleId, roiId, "drift"), null, Timeout, true, cancel);
        }

        /// <summary>Returns the figures of the report of an ROI.</summary>
        public Task<ReportAnswer> ReportAsync(string roleId, string roiId, CancellationToken cancel = default)
        {
            string path = RoiPath(roleId, roiId, "report") + new Query().Text("format", "json");
            return SendAsync<ReportAnswer>(HttpMethod.Get, path, null, Timeout, true, cancel);
        }

        /// <summary>Returns the report of an ROI as one HTML page that loads nothing from elsewhere, for a browser control.</summary>
        public Task<string> ReportPageAsync(string roleId, string roiId, CancellationToken cancel = default)
        {
            string path = RoiPath(roleId, roiId, "report") + new Query().Text("format", "html");
            return SendAsync<string>(HttpMethod.Get, path, null, Timeout, true, cancel);
        }

        /// <summary>Lists the fitted ROIs that the key allows.</summary>
        public Task<RoiList> ListRoisAsync(CancellationToken cancel = default)
        {
            return SendAsync<RoiList>(HttpMethod.Get, "/rois", null, Timeout, true, cancel);
        }

        /// <summary>Returns one ROI with its calibration, OK images and versions.</summary>
        public Task<RoiDetail> GetRoiAsync(string roleId, string roiId, CancellationToken cancel = default)
        {
            return SendAsync<RoiDetail>(HttpMethod.Get, RoiPath(roleId, roiId), null, Timeout, true, cancel);
        }

        /// <summary>Returns what the gateway is: its version, engine and model.</summary>
        public Task<HealthAnswer> HealthAsync(CancellationToken cancel = default)
        {
            return SendAsync<HealthAnswer>(HttpMethod.Get, "/health", null, Timeout, true, cancel);
        }

        /// <summary>Returns whether inspections are possible now. A gateway that cannot be reached is not ready.</summary>
        public async Task<bool> IsReadyAsync(CancellationToken cancel = default)
        {
            try
            {
                using (var request = new HttpRequestMessage(HttpMethod.Get, _url + "/ready"))
                using (HttpResponseMessage response = await WithinAsync(request, Timeout, cancel).ConfigureAwait(false))
                    return response.IsSuccessStatusCode;
            }
            catch (HttpRequestException) { return false; }
            catch (TimeoutException) { return false; }
        }

        private async Task<T> SendAsync<T>(
            HttpMethod method, string path, Func<HttpContent> content, TimeSpan timeout, bool mayRepeat, CancellationToken cancel)
        {
            for (int attempt = 1; ; attempt++)
            {
                TimeSpan? wait;
                try
                {
                    string first = path.Contains("?") ? "&" : "?";
                    string recipe = string.IsNullOrEmpty(RecipeId) ? "" : first + "recipe_id=" + Uri.EscapeDataString(RecipeId);
                    using (var request = new HttpRequestMessage(method, _url + path + recipe))
                    {
                        if (_key.Length > 0) request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", _key);
                        if (content != null) request.Content = content();
                        using (HttpResponseMessage response = await WithinAsync(request, timeout, cancel).ConfigureAwait(false))
                        {
                            byte[] body = await response.Content.ReadAsByteArrayAsync().ConfigureAwait(false);
                            if (response.IsSuccessStatusCode) return Read<T>(body);
                            GatewayException error = GatewayException.Of(response, body);
                            bool isRefused = error.Status == 429 || error.Status == 503;
                            wait = isRefused ? WaitAfter(attempt, error.RetryAfter) : null;
                            if (wait == null) throw error;
                        }
                    }
                }
                catch (HttpRequestException)
                {
                    wait = mayRepeat ? WaitAfter(attempt, null) : null;
                    if (wait == null) throw;
                }
                await Task.Delay(wait.Value, cancel).ConfigureAwait(false);
            }
        }

        private async Task<HttpResponseMessage> WithinAsync(HttpRequestMessage request, TimeSpan timeout, CancellationToken cancel)
        {
            using (var within = CancellationTokenSource.CreateLinkedTokenSource(cancel))
            {
                within.CancelAfter(timeout);
                try { return await _http.SendAsync(request, within.Token).ConfigureAwait(false); }
                catch (OperationCanceledException) when (!cancel.IsCancellationRequested)
                {
                    throw new TimeoutException($"{request.Method} {request.RequestUri}: no answer within {timeout.TotalSeconds} s");
                }
            }
        }

        private TimeSpan? WaitAfter(int attempt, TimeSpan? retryAfter)
        {
            if (attempt >= Attempts || retryAfter > LongestWait) return null;
            // From 250 ms, doubled each time; half of it is random, so that many clients do not come back at once.
            double share;
            lock (Random) share = 0.5 + Random.NextDouble() / 2;
            double ms = Math.Min(LongestWait.TotalMilliseconds, 250 * Math.Pow(2, attempt - 1)) * share;
            TimeSpan backoff = TimeSpan.FromMilliseconds(ms);
            return retryAfter > backoff ? retryAfter : backoff;
        }

        private static readonly Random Random = new Random();

        private static Func<HttpContent> JsonBody(string json)
        {
            return () => new StringContent(json, Encoding.UTF8, "application/json");
        }

        /// <summary>Returns a file as it is, a text, or the object of a JSON text.</summary>
        private static T Read<T>(byte[] body)
        {
            if (typeof(T) == typeof(byte[])) return (T)(object)body;
            return typeof(T) == typeof(string) ? (T)(object)Encoding.UTF8.GetString(body) : Json.Read<T>(body);
        }

        private static string RoiPath(params string[] parts)
        {
            foreach (string part in parts)
                if (part.Trim('.').Length == 0) throw new ArgumentException($"'{part}': expected an id");
            return "/rois/" + string.Join("/", parts.Select(Uri.EscapeDataString));
        }

        private static string First(params string[] texts)
        {
            return texts.FirstOrDefault(text => !string.IsNullOrWhiteSpace(text)) ?? "";
        }

        /// <summary>The query of an address.</summary>
        private sealed class Query
        {
            private readonly List<string> _fields = new List<string>();

            public Query Text(string name, string value)
            {
                if (value != null) _fields.Add(name + "=" + Uri.EscapeDataString(value));
                return this;
            }

            public Query Number(string name, int value) { return Text(name, value.ToString(CultureInfo.InvariantCulture)); }

            public override string ToString() { return _fields.Count == 0 ? "" : "?" + string.Join("&", _fields); }
        }

        /// <summary>A multipart form. It is made again for each attempt, since content that was sent is disposed.</summary>
        private sealed class Form
        {
            private readonly List<KeyValuePair<string, string>> _texts = new List<KeyValuePair<string, string>>();
            private readonly List<KeyValuePair<string, ImageFile>> _files = new List<KeyValuePair<string, ImageFile>>();

            public Form() { }

            public Form(string roleId, string roiId, double mmPerPx)
            {
                Text("role_id", roleId).Text("roi_id", roiId).Number("mm_per_px", mmPerPx);
            }

            public Form Text(string name, string value)
            {
                if (value != null) _texts.Add(new KeyValuePair<string, string>(name, value));
                return this;
            }

            public Form Number(string name, double? value) { return Text(name, value?.ToString("R", CultureInfo.InvariantCulture)); }

            public Form Flag(string name, bool? value) { return Text(name, value == null ? null : value.Value ? "true" : "false"); }

            public Form File(string name, ImageFile image)
            {
                _files.Add(new KeyValuePair<string, ImageFile>(name, image));
                return this;
            }

            public HttpContent Content()
            {
                var content = new MultipartFormDataContent();
                foreach (var text in _texts) content.Add(new StringContent(text.Value), text.Key);
                foreach (var file in _files) content.Add(new ByteArrayContent(file.Value.Content), file.Key, file.Value.Name);
                return content;
            }
        }
    }

    /// <summary>The bytes of an image file, and its name.</summary>
    public sealed class ImageFile
    {
        /// <summary>Makes an image of bytes.</summary>
        /// <param name="content">A whole PNG, JPEG, BMP or TIFF file.</param>
        /// <param name="name">A file name, for messages and lists.</param>
        public ImageFile(byte[] content, string name = "image.png")
        {
            Content = content ?? throw new ArgumentNullException(nameof(content));
            Name = string.IsNullOrEmpty(name) ? "image.png" : name;
        }

        /// <summary>The bytes.</summary>
        public byte[] Content { get; }

        /// <summary>The name.</summary>
        public string Name { get; }

        /// <summary>Reads a file.</summary>
        public static ImageFile FromFile(string path) { return new ImageFile(File.ReadAllBytes(path), Path.GetFileName(path)); }

        /// <summary>Reads a stream to its end, for example the output of an encoder of WPF.</summary>
        public static ImageFile FromStream(Stream stream, string name = "image.png")
        {
            using (var copy = new MemoryStream())
            {
                stream.CopyTo(copy);
                return new ImageFile(copy.ToArray(), name);
            }
        }
    }

    /// <summary>An error answer of the gateway.</summary>
    public sealed class GatewayException : Exception
    {
        internal GatewayException(string code, string message, string hint, int status, string requestId, TimeSpan? retryAfter)
            : base($"{code}: {message} {hint}".Trim())
        {
            Code = code;
            Hint = hint;
            Status = status;
            RequestId = requestId;
            RetryAfter = retryAfter;
        }

        /// <summary>Stable name of the error, such as unknown_roi. Empty if something else than a gateway answered.</summary>
        public string Code { get; }

        /// <summary>What to do about it.</summary>
        public string Hint { get; }

        /// <summary>HTTP status; 0 for the error of one image of a batch.</summary>
        public int Status { get; }

        /// <summary>X-Request-ID of the answer, for the administrator.</summary>
        public string RequestId { get; }

        /// <summary>Time after which the gateway asks to send the request again, if it does.</summary>
        public TimeSpan? RetryAfter { get; }

        internal static GatewayException Of(HttpResponseMessage response, byte[] body)
        {
            RetryConditionHeaderValue given = response.Headers.RetryAfter;
            TimeSpan? retryAfter = given?.Delta ?? (given?.Date - DateTimeOffset.UtcNow);
            IEnumerable<string> ids;
            string requestId = response.Headers.TryGetValues("X-Request-ID", out ids) ? ids.FirstOrDefault() : null;
            ErrorBody error = null;
            try { error = Json.Read<ErrorEnvelope>(body)?.Error; }
            catch (SerializationException) { }
            string start = Encoding.UTF8.GetString(body, 0, Math.Min(body.Length, 200));
            int status = (int)response.StatusCode;
            string message = error?.Message ?? $"{status} {start}";
            return new GatewayException(error?.Code ?? "", message, error?.Hint ?? "", status, requestId, retryAfter);
        }
    }

    /// <summary>Where the part is, in pixels of the image as sent. Centres default to the centre of the image.</summary>
    [DataContract]
    public sealed class Shape
    {
        private Shape(string kind) { Kind = kind; }

        [DataMember(Name = "kind")] private string Kind { get; set; }
        [DataMember(Name = "x", EmitDefaultValue = false)] private double? X { get; set; }
        [DataMember(Name = "y", EmitDefaultValue = false)] private double? Y { get; set; }
        [DataMember(Name = "cx", EmitDefaultValue = false)] private double? Cx { get; set; }
        [DataMember(Name = "cy", EmitDefaultValue = false)] private double? Cy { get; set; }
        [DataMember(Name = "r", EmitDefaultValue = false)] private double? R { get; set; }
        [DataMember(Name = "r_inner", EmitDefaultValue = false)] private double? RInner { get; set; }
        [DataMember(Name = "w", EmitDefaultValue = false)] private double? W { get; set; }
        [DataMember(Name = "h", EmitDefaultValue = false)] private double? H { get; set; }
        [DataMember(Name = "angle", EmitDefaultValue = false)] private double? Angle { get; set; }

        /// <summary>A disc.</summary>
        public static Shape Circle(double r, double? cx = null, double? cy = null)
        {
            return new Shape("circle") { R = r, Cx = cx, Cy = cy };
        }

        /// <summary>A ring.</summary>
        public static Shape Annulus(double r, double rInner, double? cx = null, double? cy = null)
        {
            return new Shape("annulus") { R = r, RInner = rInner, Cx = cx, Cy = cy };
        }

        /// <summary>A rectangle, turned clockwise by an angle in degrees.</summary>
        public static Shape Rect(double w, double h, double? cx = null, double? cy = null, double? angle = null)
        {
            return new Shape("rect") { W = w, H = h, Cx = cx, Cy = cy, Angle = angle };
        }

        /// <summary>A rectangle from its top left corner, which an angle in degrees turns clockwise about its centre.</summary>
        public static Shape RectAt(double x, double y, double w, double h, double? angle = null)
        {
            return new Shape("rect") { X = x, Y = y, W = w, H = h, Angle = angle };
        }

        /// <summary>Returns the shape as the gateway reads it.</summary>
        public string ToJson() { return Json.Write(this); }
    }

    /// <summary>Optional fields of an inspection. What is null is that of the calibration, or of the settings.</summary>
    public sealed class InferOptions
    {
        /// <summary>Where the part is; everything else is ignored.</summary>
        public Shape Shape { get; set; }

        /// <summary>Bits per sample of the camera, for files with more than 8 bits.</summary>
        public int? BitDepth { get; set; }

        /// <summary>Number of nearest neighbours to average.</summary>
        public int? K { get; set; }

        /// <summary>Percentile of the anomaly map that is the score, 95 to 100.</summary>
        public double? PScore { get; set; }

        /// <summary>Standard deviation of the blur, in pixels.</summary>
        public double? BlurSigma { get; set; }

        /// <summary>Regions smaller than this many mm² are dropped.</summary>
        public double? AreaMm2Thr { get; set; }

        /// <summary>How the heatmap is returned: "base64", "path" or "none".</summary>
        public string Heatmap { get; set; }

        /// <summary>Show the OK patch that is nearest to the most anomalous patch.</summary>
        public bool? Explain { get; set; }
    }

    /// <summary>Optional fields of a fit. They are kept with the ROI, except ExcludeSuspects.</summary>
    public sealed class FitOptions
    {
        /// <summary>Where the part is.</summary>
        public Shape Shape { get; set; }

        /// <summary>Share of the tokens to keep, usually 0.01 to 0.05.</summary>
        public double? CoresetRate { get; set; }

        /// <summary>Seed of the coreset's first centre.</summary>
        public long? Seed { get; set; }

        /// <summary>For an ROI without a manual box: "none" or "variance".</summary>
        public string SpatialWeights { get; set; }

        /// <summary>Bits per sample of the camera, for files with more than 8 bits.</summary>
        public int? BitDepth { get; set; }

        /// <summary>How many tiles an image is cut into: "auto", or at most a number; "1" is the whole image.</summary>
        public string Tiles { get; set; }

        /// <summary>Exclude images that look unlike the others.</summary>
        public bool? ExcludeSuspects { get; set; }
    }

    /// <summary>Optional fields of images to store.</summary>
    public sealed class StoreOptions
    {
        /// <summary>A JSON object for each image, in their order, kept as sent; null for an image without one.</summary>
        public IReadOnlyList<string> Metas { get; set; }

        /// <summary>Where the part is.</summary>
        public Shape Shape { get; set; }

        /// <summary>Bits per sample of the camera, for files with more than 8 bits.</summary>
        public int? BitDepth { get; set; }
    }

    /// <summary>One image of a batch, with its ROI and its parameters.</summary>
    [DataContract]
    public sealed class BatchItem
    {
        /// <summary>Makes an item.</summary>
        public BatchItem(string roleId, string roiId, ImageFile image, double mmPerPx, InferOptions options = null)
        {
            options = options ?? new InferOptions();
            Image = image;
            RoleId = roleId;
            RoiId = roiId;
            MmPerPx = mmPerPx;
            Shape = options.Shape?.ToJson();
            BitDepth = options.BitDepth;
            K = options.K;
            PScore = options.PScore;
            BlurSigma = options.BlurSigma;
            AreaMm2Thr = options.AreaMm2Thr;
            Heatmap = options.Heatmap;
            Explain = options.Explain;
        }

        internal ImageFile Image { get; }

        [DataMember(Name = "role_id")] private string RoleId { get; set; }
        [DataMember(Name = "roi_id")] private string RoiId { get; set; }
        [DataMember(Name = "mm_per_px")] private double MmPerPx { get; set; }
        [DataMember(Name = "shape", EmitDefaultValue = false)] private string Shape { get; set; }
        [DataMember(Name = "bit_depth", EmitDefaultValue = false)] private int? BitDepth { get; set; }
        [DataMember(Name = "k", EmitDefaultValue = false)] private int? K { get; set; }
        [DataMember(Name = "p_score", EmitDefaultValue = false)] private double? PScore { get; set; }
        [DataMember(Name = "blur_sigma", EmitDefaultValue = false)] private double? BlurSigma { get; set; }
        [DataMember(Name = "area_mm2_thr", EmitDefaultValue = false)] private double? AreaMm2Thr { get; set; }
        [DataMember(Name = "heatmap", EmitDefaultValue = false)] private string Heatmap { get; set; }
        [DataMember(Name = "explain", EmitDefaultValue = false)] private bool? Explain { get; set; }
    }

    [DataContract]
    internal sealed class Relabelling
    {
        [DataMember(Name = "label")] internal string Label { get; set; }
    }

    /// <summary>What became of one image of a batch: either an answer or an error.</summary>
    public sealed class BatchResult
    {
        internal BatchResult(AnswerOrError each)
        {
            if (each.Error == null) Answer = each;
            else Error = new GatewayException(each.Error.Code, each.Error.Message, each.Error.Hint, 0, null, null);
        }

        /// <summary>The inspection, or null.</summary>
        public InferAnswer Answer { get; }

        /// <summary>The error of this image, or null.</summary>
        public GatewayException Error { get; }
    }

    [DataContract]
    internal sealed class AnswerOrError : InferAnswer
    {
        [DataMember(Name = "error")] internal ErrorBody Error { get; set; }
    }

    [DataContract]
    internal sealed class BatchAnswers
    {
        [DataMember(Name = "results")] internal AnswerOrError[] Results { get; set; }
    }

    public partial class InferAnswer
    {
        /// <summary>Whether the verdict is ok. Before calibration neither IsOk nor IsNg is true.</summary>
        public bool IsOk { get { return Verdict == "ok"; } }

        /// <summary>Whether the verdict is ng.</summary>
        public bool IsNg { get { return Verdict == "ng"; } }

        /// <summary>The heatmap as an 8-bit grey PNG file, or null. 255 is a distance of <see cref="HeatmapMax"/>.</summary>
        public byte[] HeatmapPng { get { return HeatmapPngBase64 == null ? null : Convert.FromBase64String(HeatmapPngBase64); } }
    }

    public partial class CalibrateRequest
    {
        /// <summary>Makes a request. Without OkScores, the scores of the fit are used.</summary>
        public CalibrateRequest(string roleId, string roiId, double mmPerPx)
        {
            RoleId = roleId;
            RoiId = roiId;
            MmPerPx = mmPerPx;
        }
    }

    internal static class Json
    {
        internal static string Write<T>(T value)
        {
            using (var stream = new MemoryStream())
            {
                new DataContractJsonSerializer(typeof(T)).WriteObject(stream, value);
                return Encoding.UTF8.GetString(stream.ToArray());
            }
        }

        internal static T Read<T>(byte[] body)
        {
            using (var stream = new MemoryStream(body))
                return (T)new DataContractJsonSerializer(typeof(T)).ReadObject(stream);
        }
    }

#pragma warning disable 1591 // a property without a comment is described by its name
    // <models> Written by `python -m tests.clients.client_sources`.
    /// <summary>The inspection of one image.</summary>
    [DataContract]
    public partial class InferAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "score")] public double Score { get; set; }
        /// <summary>Null where the verdict is uncalibrated; then there are no regions.</summary>
        [DataMember(Name = "threshold")] public double? Threshold { get; set; }
        /// <summary>Highest level at which a region of at least area_mm2_thr survives in the blurred map within the
        /// shape; null if no such region fits into it.</summary>
        [DataMember(Name = "peak")] public double? Peak { get; set; }
        /// <summary>There is a region exactly if peak is at or above it; null as threshold is.</summary>
        [DataMember(Name = "peak_threshold")] public double? PeakThreshold { get; set; }
        /// <summary>Another name of peak_threshold.</summary>
        [DataMember(Name = "pixel_threshold")] public double? PixelThreshold { get; set; }
        /// <summary>An image that is not ng is review if its peak is at or above it; null without a review
        /// band.</summary>
        [DataMember(Name = "review_threshold")] public double? ReviewThreshold { get; set; }
        /// <summary>calibration: the stored thresholds. shape: the rule of the calibration over the OK images within
        /// the shape of this request, since they were scored within other pixels. parameters: the same rule with the
        /// blur_sigma and the smallest area of this request. One of: calibration, shape, parameters.</summary>
        [DataMember(Name = "threshold_source")] public string ThresholdSource { get; set; }
        /// <summary>One of: ok, review, ng, uncalibrated.</summary>
        [DataMember(Name = "verdict")] public string Verdict { get; set; }
        /// <summary>Why the verdict is ng; no_picture: all pixels are equal or transparent. Of uncalibrated: the
        /// parameter of the request that the thresholds were not made with (p_score, k or shape), null before
        /// calibration. One of: score, region, both, no_picture, p_score, k, shape.</summary>
        [DataMember(Name = "verdict_reason")] public string VerdictReason { get; set; }
        /// <summary>Whether the thresholds were made for another memory bank or other weights.</summary>
        [DataMember(Name = "calibration_stale")] public bool CalibrationStale { get; set; }
        /// <summary>Whether the manual box or the settings of the weights changed since the fit.</summary>
        [DataMember(Name = "weights_stale")] public bool WeightsStale { get; set; }
        /// <summary>Whether files in use are damaged; the last undamaged version or a copy answers (see
        /// warnings).</summary>
        [DataMember(Name = "degraded")] public bool Degraded { get; set; }
        /// <summary>Null for heatmap=path and none.</summary>
        [DataMember(Name = "heatmap_png_base64")] public string HeatmapPngBase64 { get; set; }
        /// <summary>Path below GATEWAY_HEATMAP_DIR; null unless heatmap=path.</summary>
        [DataMember(Name = "heatmap_path")] public string HeatmapPath { get; set; }
        /// <summary>Map value of the grey level 255; the same for all heatmaps of a version.</summary>
        [DataMember(Name = "heatmap_max")] public double HeatmapMax { get; set; }
        /// <summary>Largest first.</summary>
        [DataMember(Name = "regions")] public RegionAnswer[] Regions { get; set; }
        [DataMember(Name = "token_shape")] public int[] TokenShape { get; set; }
        /// <summary>Width and height of the image after EXIF orientation.</summary>
        [DataMember(Name = "image_size")] public int[] ImageSize { get; set; }
        [DataMember(Name = "params")] public ParamsAnswer Params { get; set; }
        /// <summary>Version that answered.</summary>
        [DataMember(Name = "version")] public int Version { get; set; }
        /// <summary>Null unless explain is true, and where there is nothing to show; then warnings says why.</summary>
        [DataMember(Name = "explanation")] public ExplanationAnswer Explanation { get; set; }
        [DataMember(Name = "warnings")] public string[] Warnings { get; set; }
    }

    /// <summary>A connected region above the threshold, in pixels of the image as sent.</summary>
    [DataContract]
    public sealed class RegionAnswer
    {
        /// <summary>x, y, w, h.</summary>
        [DataMember(Name = "bbox")] public int[] Bbox { get; set; }
        [DataMember(Name = "area_px")] public int AreaPx { get; set; }
        [DataMember(Name = "area_mm2")] public double AreaMm2 { get; set; }
        [DataMember(Name = "contour")] public int[][] Contour { get; set; }
    }

    /// <summary>Parameters of an inspection.</summary>
    [DataContract]
    public sealed class ParamsAnswer
    {
        [DataMember(Name = "extractor")] public string Extractor { get; set; }
        [DataMember(Name = "coreset_rate")] public double CoresetRate { get; set; }
        [DataMember(Name = "k")] public int K { get; set; }
        [DataMember(Name = "p_score")] public double PScore { get; set; }
        [DataMember(Name = "blur_sigma")] public double BlurSigma { get; set; }
        [DataMember(Name = "area_mm2_thr")] public double AreaMm2Thr { get; set; }
        [DataMember(Name = "mm_per_px")] public double MmPerPx { get; set; }
        /// <summary>Bits per sample of the camera; null scales by the bits of the file.</summary>
        [DataMember(Name = "bit_depth")] public int? BitDepth { get; set; }
    }

    /// <summary>Where the image is most anomalous, and what the gateway compared it with.</summary>
    [DataContract]
    public sealed class ExplanationAnswer
    {
        /// <summary>Of the two patches, 0 to 2, before the spatial weights.</summary>
        [DataMember(Name = "distance")] public double Distance { get; set; }
        [DataMember(Name = "patch")] public PatchAnswer Patch { get; set; }
        [DataMember(Name = "ok_patch")] public OkPatchAnswer OkPatch { get; set; }
    }

    /// <summary>The most anomalous patch of the inspected image: the one under the peak of its map.</summary>
    [DataContract]
    public sealed class PatchAnswer
    {
        /// <summary>x, y, w, h in pixels of the image as sent.</summary>
        [DataMember(Name = "box")] public int[] Box { get; set; }
        [DataMember(Name = "crop")] public CropAnswer Crop { get; set; }
    }

    /// <summary>A patch with its surroundings, three times its width and height.</summary>
    [DataContract]
    public sealed class CropAnswer
    {
        /// <summary>x, y, w, h of the crop in pixels of its image.</summary>
        [DataMember(Name = "box")] public int[] Box { get; set; }
        /// <summary>Scaled down where a side has more than 256 pixels; nothing is drawn into it.</summary>
        [DataMember(Name = "png_base64")] public string PngBase64 { get; set; }
    }

    /// <summary>The patch of the learned OK images that is nearest to it.</summary>
    [DataContract]
    public sealed class OkPatchAnswer
    {
        /// <summary>The OK image, as in images of GET /rois/{role_id}/{roi_id}.</summary>
        [DataMember(Name = "sha256")] public string Sha256 { get; set; }
        [DataMember(Name = "file_name")] public string FileName { get; set; }
        /// <summary>x, y, w, h in pixels of the OK image.</summary>
        [DataMember(Name = "box")] public int[] Box { get; set; }
        /// <summary>Null where the file of the OK image is damaged or missing.</summary>
        [DataMember(Name = "crop")] public CropAnswer Crop { get; set; }
    }

    /// <summary>Result of a fit.</summary>
    [DataContract]
    public sealed class FitAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        /// <summary>OK images that the ROI has learned in total.</summary>
        [DataMember(Name = "n_ok_total")] public int NOkTotal { get; set; }
        [DataMember(Name = "n_ok_added")] public int NOkAdded { get; set; }
        /// <summary>Images of this request that were already learned, or sent twice.</summary>
        [DataMember(Name = "duplicates")] public int Duplicates { get; set; }
        /// <summary>Tokens in the memory bank, after the coreset.</summary>
        [DataMember(Name = "n_embeddings")] public int NEmbeddings { get; set; }
        /// <summary>Tokens of all OK images, before the coreset.</summary>
        [DataMember(Name = "n_tokens_total")] public int NTokensTotal { get; set; }
        [DataMember(Name = "coreset_rate")] public double CoresetRate { get; set; }
        [DataMember(Name = "coreset_rate_applied")] public double CoresetRateApplied { get; set; }
        /// <summary>Largest distance of an OK token to the bank, 0 to 2.</summary>
        [DataMember(Name = "covering_radius")] public double CoveringRadius { get; set; }
        [DataMember(Name = "seed")] public long Seed { get; set; }
        /// <summary>SHA-256 of the bank; the same images, order and seed give the same checksum.</summary>
        [DataMember(Name = "checksum")] public string Checksum { get; set; }
        [DataMember(Name = "version")] public int Version { get; set; }
        [DataMember(Name = "token_shape")] public int[] TokenShape { get; set; }
        /// <summary>Rows and columns of tiles that an image is cut into; 1, 1: the whole.</summary>
        [DataMember(Name = "tiles")] public int[] Tiles { get; set; }
        /// <summary>Scores of the OK images, each against the bank without it; null with one image only.</summary>
        [DataMember(Name = "ok_scores")] public ScoreSummary OkScores { get; set; }
        /// <summary>Images sent as OK that are excluded from the bank; n_ok_total does not count them.</summary>
        [DataMember(Name = "n_ok_excluded")] public int NOkExcluded { get; set; }
        /// <summary>Largest score first; needs at least 10 images. Images that exclude_suspects excluded come before
        /// those that stand out among the remaining images.</summary>
        [DataMember(Name = "suspect_images")] public SuspectAnswer[] SuspectImages { get; set; }
        [DataMember(Name = "spatial_weights")] public WeightsRecipe SpatialWeights { get; set; }
        /// <summary>One of: none, current, redone, stale.</summary>
        [DataMember(Name = "calibration")] public string Calibration { get; set; }
        [DataMember(Name = "warnings")] public string[] Warnings { get; set; }
    }

    /// <summary>Summary of the leave-one-out scores of a version's OK images.</summary>
    [DataContract]
    public sealed class ScoreSummary
    {
        [DataMember(Name = "n")] public int N { get; set; }
        [DataMember(Name = "mean")] public double Mean { get; set; }
        [DataMember(Name = "p50")] public double P50 { get; set; }
        [DataMember(Name = "p95")] public double P95 { get; set; }
        [DataMember(Name = "p99")] public double P99 { get; set; }
        [DataMember(Name = "max")] public double Max { get; set; }
    }

    /// <summary>An OK image that looks unlike the others and should be checked.</summary>
    [DataContract]
    public sealed class SuspectAnswer
    {
        [DataMember(Name = "sha256")] public string Sha256 { get; set; }
        [DataMember(Name = "file_name")] public string FileName { get; set; }
        /// <summary>Score against the bank without this image.</summary>
        [DataMember(Name = "score")] public double Score { get; set; }
        /// <summary>(score − median) / (1.4826 · MAD) of all OK scores; above 5 the image is suspect.</summary>
        [DataMember(Name = "robust_z")] public double RobustZ { get; set; }
        /// <summary>Excluded from the bank because of exclude_suspects.</summary>
        [DataMember(Name = "excluded")] public bool Excluded { get; set; }
    }

    /// <summary>How the spatial weights of a version were made.</summary>
    [DataContract]
    public sealed class WeightsRecipe
    {
        /// <summary>One of: none, variance, manual, file.</summary>
        [DataMember(Name = "kind")] public string Kind { get; set; }
        [DataMember(Name = "box")] public double[] Box { get; set; }
        [DataMember(Name = "box_space")] public int? BoxSpace { get; set; }
        [DataMember(Name = "min_weight")] public double? MinWeight { get; set; }
        [DataMember(Name = "max_weight")] public double? MaxWeight { get; set; }
    }

    /// <summary>The stored thresholds. An image is NG if its peak reaches `peak_threshold` or its score is above
    /// `threshold`.</summary>
    [DataContract]
    public sealed class CalibrateAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "threshold")] public double Threshold { get; set; }
        /// <summary>An image has a region exactly if its peak is at or above it.</summary>
        [DataMember(Name = "peak_threshold")] public double PeakThreshold { get; set; }
        /// <summary>Another name of peak_threshold.</summary>
        [DataMember(Name = "pixel_threshold")] public double PixelThreshold { get; set; }
        /// <summary>One of: peak, score, ok_pixels, given.</summary>
        [DataMember(Name = "pixel_threshold_source")] public string PixelThresholdSource { get; set; }
        /// <summary>Lower end of the review band; null without one.</summary>
        [DataMember(Name = "review_threshold")] public double? ReviewThreshold { get; set; }
        /// <summary>Share of good parts whose peak is expected at or above review_threshold: (x+1)/(n+1) if x of the n
        /// OK peaks are; null without a review band or without leave-one-out maps.</summary>
        [DataMember(Name = "review_rate")] public double? ReviewRate { get; set; }
        [DataMember(Name = "p99_ok")] public double P99Ok { get; set; }
        [DataMember(Name = "p5_ng")] public double? P5Ng { get; set; }
        [DataMember(Name = "mm_per_px")] public double MmPerPx { get; set; }
        [DataMember(Name = "area_mm2_thr")] public double AreaMm2Thr { get; set; }
        [DataMember(Name = "score_percentile")] public double ScorePercentile { get; set; }
        /// <summary>Largest defect that the percentile hides from the score: 1 − p of the mask of the median OK
        /// image.</summary>
        [DataMember(Name = "blind_area_mm2")] public double BlindAreaMm2 { get; set; }
        /// <summary>One of: p99_ok+margin, conformal, grid, given.</summary>
        [DataMember(Name = "method")] public string Method { get; set; }
        /// <summary>One of: given, leave-one-out, validation.</summary>
        [DataMember(Name = "ok_source")] public string OkSource { get; set; }
        /// <summary>Whether it rests on the images of the ROI and on no given score: the next fit computes it again
        /// with the images that are stored then.</summary>
        [DataMember(Name = "stored_images")] public bool StoredImages { get; set; }
        /// <summary>Stored OK images among n_ok that the bank has not learned.</summary>
        [DataMember(Name = "n_ok_unseen")] public int NOkUnseen { get; set; }
        [DataMember(Name = "n_ok")] public int NOk { get; set; }
        [DataMember(Name = "n_ng")] public int NNg { get; set; }
        /// <summary>Number of OK scores above the threshold.</summary>
        [DataMember(Name = "ok_above")] public int OkAbove { get; set; }
        /// <summary>Number of NG scores not above the threshold.</summary>
        [DataMember(Name = "ng_below")] public int NgBelow { get; set; }
        /// <summary>Scores of the NG images that pass by their score; only a peak that reaches peak_threshold rejects
        /// such a part.</summary>
        [DataMember(Name = "missed_ng")] public double[] MissedNg { get; set; }
        /// <summary>Whether p99 of OK lies below p5 of NG; null without NG scores.</summary>
        [DataMember(Name = "separable")] public bool? Separable { get; set; }
        /// <summary>α of the verdict, as requested or set; with pixel_threshold score, ok_pixels or a number, that of
        /// the score, as requested.</summary>
        [DataMember(Name = "false_alarm_rate")] public double? FalseAlarmRate { get; set; }
        /// <summary>Whether split conformal prediction guarantees the requested rate: true with enough ok_scores of
        /// images that the bank has not learned. false for a calibration by the peak and for leave-one-out scores, for
        /// which it holds approximately, and for too few scores; null if no rate was requested or used.</summary>
        [DataMember(Name = "guaranteed")] public bool? Guaranteed { get; set; }
        /// <summary>Number of OK images still missing for the requested rate; 0 if there are enough.</summary>
        [DataMember(Name = "n_ok_needed")] public int? NOkNeeded { get; set; }
        /// <summary>Upper bound of the expected share of unseen OK images that the score rejects: (x+1)/(n+1) if x of n
        /// OK scores are above the threshold.</summary>
        [DataMember(Name = "expected_false_alarm_rate")] public double ExpectedFalseAlarmRate { get; set; }
        /// <summary>95 % confidence interval of that share (Clopper and Pearson). It is one-sided from 0 for leave-one-
        /// out scores, which are too high, unless the peak decides.</summary>
        [DataMember(Name = "expected_false_alarm_interval")] public double[] ExpectedFalseAlarmInterval { get; set; }
        /// <summary>The same for the verdict, by score or peak, counted on the fit's leave-one-out maps at this
        /// mm_per_px and area_mm2_thr: (x+1)/(n+1), or (x+2)/(n+1) where NG scores lowered the threshold; null if the
        /// fit has no such maps.</summary>
        [DataMember(Name = "verdict_false_alarm_rate")] public double? VerdictFalseAlarmRate { get; set; }
        [DataMember(Name = "verdict_false_alarm_interval")] public double[] VerdictFalseAlarmInterval { get; set; }
        /// <summary>Version of the memory bank that the thresholds are for.</summary>
        [DataMember(Name = "version")] public int Version { get; set; }
        [DataMember(Name = "warnings")] public string[] Warnings { get; set; }
    }

    /// <summary>Scores that `/infer` returned for images known to be OK or NG.</summary>
    [DataContract]
    public partial class CalibrateRequest
    {
        /// <summary>Part or station: 1 to 64 characters: letters and digits of any script, space, '.', '_', '-', not
        /// starting or ending with a dot or a space.</summary>
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        /// <summary>Region of the part: 1 to 64 characters: letters and digits of any script, space, '.', '_', '-', not
        /// starting or ending with a dot or a space.</summary>
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        /// <summary>Variant of the product: 1 to 64 characters: letters and digits of any script, space, '.', '_', '-',
        /// not starting or ending with a dot or a space. Recipes share nothing. Without it the header X-Recipe-Id
        /// counts, and without that 'default'.</summary>
        [DataMember(Name = "recipe_id", EmitDefaultValue = false)] public string RecipeId { get; set; }
        /// <summary>Millimetres per pixel of the image as sent.</summary>
        [DataMember(Name = "mm_per_px")] public double MmPerPx { get; set; }
        /// <summary>Scores of unseen OK images; without any, the fit's leave-one-out scores are used. Without any score
        /// at all, the stored images count too.</summary>
        [DataMember(Name = "ok_scores", EmitDefaultValue = false)] public double[] OkScores { get; set; }
        /// <summary>Scores of NG images; with any, the threshold lies between p99 of OK and p5 of NG, and never above
        /// the one without them.</summary>
        [DataMember(Name = "ng_scores", EmitDefaultValue = false)] public double[] NgScores { get; set; }
        /// <summary>Regions smaller than this many mm² are dropped.</summary>
        [DataMember(Name = "area_mm2_thr", EmitDefaultValue = false)] public double? AreaMm2Thr { get; set; }
        [DataMember(Name = "score_percentile", EmitDefaultValue = false)] public double? ScorePercentile { get; set; }
        /// <summary>α, the share of OK images that the verdict may reject, usually 0.01 to 0.1;
        /// GATEWAY_FALSE_ALARM_RATE without one. With pixel_threshold score, ok_pixels or a number, it is α of the
        /// score alone, and not used with NG scores.</summary>
        [DataMember(Name = "false_alarm_rate", EmitDefaultValue = false)] public double? FalseAlarmRate { get; set; }
        /// <summary>Threshold of regions. peak: the OK peak of conformal rank ⌈(n+1)(1−α)⌉, so that the verdict has the
        /// rate α. score: equal to the threshold of the score. ok_pixels: the rule of the score applied to the highest
        /// pixel of each blurred leave-one-out map, so that OK images rarely have a region. Or a number.</summary>
        [DataMember(Name = "pixel_threshold", EmitDefaultValue = false)] public string PixelThreshold { get; set; }
        /// <summary>Threshold of the peak, instead of one that the rate chooses. The threshold of the score is equal to
        /// it, or p99 of OK + margin where that is higher. Not together with a pixel_threshold or a rate.</summary>
        [DataMember(Name = "peak_threshold", EmitDefaultValue = false)] public double? PeakThreshold { get; set; }
        /// <summary>Lower end of a review band below peak_threshold: /infer returns the verdict review for an image
        /// that is not ng and whose peak is at or above it. Without one, there is no review band.</summary>
        [DataMember(Name = "review_threshold", EmitDefaultValue = false)] public double? ReviewThreshold { get; set; }
        /// <summary>The shape of /infer that the thresholds are for: the scores were measured within it. Without one,
        /// the thresholds are for the pixels that the OK images were fitted with.</summary>
        [DataMember(Name = "shape", EmitDefaultValue = false)] public string Shape { get; set; }
    }

    /// <summary>The version in use after a rollback.</summary>
    [DataContract]
    public sealed class RollbackAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "version_before")] public int VersionBefore { get; set; }
        [DataMember(Name = "version")] public int Version { get; set; }
        [DataMember(Name = "n_ok_total")] public int NOkTotal { get; set; }
        /// <summary>One of: none, current, stale.</summary>
        [DataMember(Name = "calibration")] public string Calibration { get; set; }
        [DataMember(Name = "threshold")] public double? Threshold { get; set; }
        [DataMember(Name = "warnings")] public string[] Warnings { get; set; }
    }

    /// <summary>A deleted ROI. Its OK images, versions and calibration are deleted as well.</summary>
    [DataContract]
    public sealed class DeletedAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "deleted")] public bool Deleted { get; set; }
    }

    /// <summary>Result of storing images.</summary>
    [DataContract]
    public sealed class StoredAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        /// <summary>One of: ok, ng.</summary>
        [DataMember(Name = "label")] public string Label { get; set; }
        [DataMember(Name = "n_added")] public int NAdded { get; set; }
        /// <summary>Images of this request that were stored already, or sent twice.</summary>
        [DataMember(Name = "duplicates")] public int Duplicates { get; set; }
        /// <summary>Stored OK images of the ROI now.</summary>
        [DataMember(Name = "n_ok")] public int NOk { get; set; }
        [DataMember(Name = "n_ng")] public int NNg { get; set; }
        /// <summary>In the order of the request.</summary>
        [DataMember(Name = "images")] public StoredImageAnswer[] Images { get; set; }
        [DataMember(Name = "warnings")] public string[] Warnings { get; set; }
    }

    /// <summary>What became of one file of a request.</summary>
    [DataContract]
    public sealed class StoredImageAnswer
    {
        [DataMember(Name = "id")] public string Id { get; set; }
        /// <summary>Name of the stored image: that of the first file with this picture.</summary>
        [DataMember(Name = "file_name")] public string FileName { get; set; }
        /// <summary>Whether the picture was stored already, or came before in this request.</summary>
        [DataMember(Name = "duplicate")] public bool Duplicate { get; set; }
    }

    /// <summary>A page of the images of an ROI, oldest first.</summary>
    [DataContract]
    public sealed class ImageList
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        /// <summary>OK images, also those that only a fit brought.</summary>
        [DataMember(Name = "n_ok")] public int NOk { get; set; }
        [DataMember(Name = "n_ng")] public int NNg { get; set; }
        /// <summary>Size of all these files.</summary>
        [DataMember(Name = "n_bytes")] public int NBytes { get; set; }
        /// <summary>Images with the label that was asked for.</summary>
        [DataMember(Name = "total")] public int Total { get; set; }
        [DataMember(Name = "offset")] public int Offset { get; set; }
        [DataMember(Name = "limit")] public int Limit { get; set; }
        [DataMember(Name = "images")] public ImageAnswer[] Images { get; set; }
        /// <summary>Stored images whose record is damaged.</summary>
        [DataMember(Name = "warnings")] public string[] Warnings { get; set; }
    }

    /// <summary>An image of an ROI.</summary>
    [DataContract]
    public sealed class ImageAnswer
    {
        /// <summary>SHA-256 of the decoded pixels; the same picture has the same id in every file.</summary>
        [DataMember(Name = "id")] public string Id { get; set; }
        /// <summary>One of: ok, ng.</summary>
        [DataMember(Name = "label")] public string Label { get; set; }
        /// <summary>As sent.</summary>
        [DataMember(Name = "file_name")] public string FileName { get; set; }
        [DataMember(Name = "content_type")] public string ContentType { get; set; }
        /// <summary>When it was stored, UTC; null for an image that only a fit brought.</summary>
        [DataMember(Name = "created_at")] public string CreatedAt { get; set; }
        [DataMember(Name = "n_bytes")] public int NBytes { get; set; }
        /// <summary>In pixels, upright.</summary>
        [DataMember(Name = "width")] public int Width { get; set; }
        [DataMember(Name = "height")] public int Height { get; set; }
        [DataMember(Name = "has_metadata")] public bool HasMetadata { get; set; }
        /// <summary>Whether the version in use has learned it.</summary>
        [DataMember(Name = "learned")] public bool Learned { get; set; }
        /// <summary>Whether an earlier fit excluded it as a suspect.</summary>
        [DataMember(Name = "excluded")] public bool Excluded { get; set; }
        /// <summary>Whether it is learned and looks unlike the other learned images.</summary>
        [DataMember(Name = "suspect")] public bool Suspect { get; set; }
        /// <summary>Its score in the version in use, if known: of a learned image against the bank without it; of
        /// another one since the fit or the calibration that scored it.</summary>
        [DataMember(Name = "score")] public double? Score { get; set; }
        /// <summary>Its peak, likewise; null as well where no region of the smallest area fits. That of a learned image
        /// is known once the ROI is calibrated by the peak.</summary>
        [DataMember(Name = "peak")] public double? Peak { get; set; }
    }

    /// <summary>A deleted image. If a bank has learned it, the next fit removes it from there.</summary>
    [DataContract]
    public sealed class ImageDeleted
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "id")] public string Id { get; set; }
        [DataMember(Name = "deleted")] public bool Deleted { get; set; }
    }

    /// <summary>Deleted images of one label.</summary>
    [DataContract]
    public sealed class ImagesDeleted
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        /// <summary>One of: ok, ng.</summary>
        [DataMember(Name = "label")] public string Label { get; set; }
        [DataMember(Name = "deleted")] public int Deleted { get; set; }
    }

    /// <summary>Every fitted ROI, and those that have stored images alone.</summary>
    [DataContract]
    public sealed class RoiList
    {
        [DataMember(Name = "rois")] public RoiSummary[] Rois { get; set; }
        /// <summary>ROIs with stored images that were never fitted.</summary>
        [DataMember(Name = "unfitted")] public UnfittedRoi[] Unfitted { get; set; }
        /// <summary>ROIs with damaged files, and what is damaged.</summary>
        [DataMember(Name = "unreadable")] public string[] Unreadable { get; set; }
    }

    /// <summary>A fitted ROI.</summary>
    [DataContract]
    public sealed class RoiSummary
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "version")] public int Version { get; set; }
        [DataMember(Name = "created_at")] public string CreatedAt { get; set; }
        /// <summary>One of: memory-bank, student-teacher.</summary>
        [DataMember(Name = "detector")] public string Detector { get; set; }
        /// <summary>Learned OK images; for a student-teacher model, its validation images.</summary>
        [DataMember(Name = "n_ok_total")] public int NOkTotal { get; set; }
        /// <summary>0 without a memory bank.</summary>
        [DataMember(Name = "n_embeddings")] public int NEmbeddings { get; set; }
        [DataMember(Name = "coreset_rate_applied")] public double CoresetRateApplied { get; set; }
        /// <summary>Rows and columns of tiles that an image is cut into; 1, 1: the whole.</summary>
        [DataMember(Name = "tiles")] public int[] Tiles { get; set; }
        [DataMember(Name = "mm_per_px")] public double MmPerPx { get; set; }
        [DataMember(Name = "checksum")] public string Checksum { get; set; }
        [DataMember(Name = "model_fingerprint")] public string ModelFingerprint { get; set; }
        [DataMember(Name = "ok_scores")] public ScoreSummary OkScores { get; set; }
        [DataMember(Name = "n_ok_excluded")] public int NOkExcluded { get; set; }
        /// <summary>Number of learned OK images that look unlike the others.</summary>
        [DataMember(Name = "n_suspects")] public int NSuspects { get; set; }
        [DataMember(Name = "spatial_weights")] public WeightsRecipe SpatialWeights { get; set; }
        /// <summary>Whether the manual box or the settings of the weights changed since the fit.</summary>
        [DataMember(Name = "weights_stale")] public bool WeightsStale { get; set; }
        /// <summary>Largest defect that the percentile hides from the score.</summary>
        [DataMember(Name = "blind_area_mm2")] public double BlindAreaMm2 { get; set; }
        [DataMember(Name = "calibration")] public CalibrationSummary Calibration { get; set; }
        /// <summary>Whether files of the ROI are damaged; warnings name them and the version that answers.</summary>
        [DataMember(Name = "degraded")] public bool Degraded { get; set; }
        /// <summary>Signals whose drift chance does not explain; see …/drift.</summary>
        [DataMember(Name = "drift_alarms")] public string[] DriftAlarms { get; set; }
        [DataMember(Name = "warnings")] public string[] Warnings { get; set; }
    }

    /// <summary>The calibration in use.</summary>
    [DataContract]
    public sealed class CalibrationSummary
    {
        [DataMember(Name = "threshold")] public double Threshold { get; set; }
        /// <summary>An image has a region exactly if its peak is at or above it.</summary>
        [DataMember(Name = "peak_threshold")] public double PeakThreshold { get; set; }
        /// <summary>Another name of peak_threshold.</summary>
        [DataMember(Name = "pixel_threshold")] public double PixelThreshold { get; set; }
        /// <summary>One of: peak, score, ok_pixels, given.</summary>
        [DataMember(Name = "pixel_threshold_source")] public string PixelThresholdSource { get; set; }
        /// <summary>Lower end of the review band; null without one.</summary>
        [DataMember(Name = "review_threshold")] public double? ReviewThreshold { get; set; }
        /// <summary>Share of good parts expected at or above it.</summary>
        [DataMember(Name = "review_rate")] public double? ReviewRate { get; set; }
        [DataMember(Name = "p99_ok")] public double P99Ok { get; set; }
        [DataMember(Name = "p5_ng")] public double? P5Ng { get; set; }
        [DataMember(Name = "area_mm2_thr")] public double AreaMm2Thr { get; set; }
        [DataMember(Name = "score_percentile")] public double ScorePercentile { get; set; }
        /// <summary>Shape that it was made for, as JSON; null for that of the OK images.</summary>
        [DataMember(Name = "shape")] public string Shape { get; set; }
        /// <summary>One of: p99_ok+margin, conformal, grid, given.</summary>
        [DataMember(Name = "method")] public string Method { get; set; }
        /// <summary>One of: given, leave-one-out, validation.</summary>
        [DataMember(Name = "ok_source")] public string OkSource { get; set; }
        [DataMember(Name = "n_ok")] public int NOk { get; set; }
        [DataMember(Name = "n_ng")] public int NNg { get; set; }
        /// <summary>Scores of the NG images that passed by their score.</summary>
        [DataMember(Name = "missed_ng")] public double[] MissedNg { get; set; }
        [DataMember(Name = "false_alarm_rate")] public double? FalseAlarmRate { get; set; }
        [DataMember(Name = "guaranteed")] public bool? Guaranteed { get; set; }
        [DataMember(Name = "expected_false_alarm_rate")] public double? ExpectedFalseAlarmRate { get; set; }
        [DataMember(Name = "expected_false_alarm_interval")] public double[] ExpectedFalseAlarmInterval { get; set; }
        [DataMember(Name = "verdict_false_alarm_rate")] public double? VerdictFalseAlarmRate { get; set; }
        [DataMember(Name = "verdict_false_alarm_interval")] public double[] VerdictFalseAlarmInterval { get; set; }
        [DataMember(Name = "version")] public int Version { get; set; }
        [DataMember(Name = "created_at")] public string CreatedAt { get; set; }
        /// <summary>Whether it was made for an earlier memory bank than the one in use.</summary>
        [DataMember(Name = "stale")] public bool Stale { get; set; }
    }

    /// <summary>An ROI that has stored images and no version yet. It does not inspect.</summary>
    [DataContract]
    public sealed class UnfittedRoi
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "state")] public string State { get; set; }
        /// <summary>Stored OK images: POST /fit_ok without files learns them.</summary>
        [DataMember(Name = "n_ok")] public int NOk { get; set; }
        /// <summary>Stored NG images.</summary>
        [DataMember(Name = "n_ng")] public int NNg { get; set; }
    }

    /// <summary>A fitted ROI with its OK images and versions.</summary>
    [DataContract]
    public sealed class RoiDetail
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "version")] public int Version { get; set; }
        [DataMember(Name = "created_at")] public string CreatedAt { get; set; }
        /// <summary>One of: memory-bank, student-teacher.</summary>
        [DataMember(Name = "detector")] public string Detector { get; set; }
        /// <summary>Learned OK images; for a student-teacher model, its validation images.</summary>
        [DataMember(Name = "n_ok_total")] public int NOkTotal { get; set; }
        /// <summary>0 without a memory bank.</summary>
        [DataMember(Name = "n_embeddings")] public int NEmbeddings { get; set; }
        [DataMember(Name = "coreset_rate_applied")] public double CoresetRateApplied { get; set; }
        /// <summary>Rows and columns of tiles that an image is cut into; 1, 1: the whole.</summary>
        [DataMember(Name = "tiles")] public int[] Tiles { get; set; }
        [DataMember(Name = "mm_per_px")] public double MmPerPx { get; set; }
        [DataMember(Name = "checksum")] public string Checksum { get; set; }
        [DataMember(Name = "model_fingerprint")] public string ModelFingerprint { get; set; }
        [DataMember(Name = "ok_scores")] public ScoreSummary OkScores { get; set; }
        [DataMember(Name = "n_ok_excluded")] public int NOkExcluded { get; set; }
        /// <summary>Number of learned OK images that look unlike the others.</summary>
        [DataMember(Name = "n_suspects")] public int NSuspects { get; set; }
        [DataMember(Name = "spatial_weights")] public WeightsRecipe SpatialWeights { get; set; }
        /// <summary>Whether the manual box or the settings of the weights changed since the fit.</summary>
        [DataMember(Name = "weights_stale")] public bool WeightsStale { get; set; }
        /// <summary>Largest defect that the percentile hides from the score.</summary>
        [DataMember(Name = "blind_area_mm2")] public double BlindAreaMm2 { get; set; }
        [DataMember(Name = "calibration")] public CalibrationSummary Calibration { get; set; }
        /// <summary>Whether files of the ROI are damaged; warnings name them and the version that answers.</summary>
        [DataMember(Name = "degraded")] public bool Degraded { get; set; }
        /// <summary>Signals whose drift chance does not explain; see …/drift.</summary>
        [DataMember(Name = "drift_alarms")] public string[] DriftAlarms { get; set; }
        [DataMember(Name = "warnings")] public string[] Warnings { get; set; }
        [DataMember(Name = "covering_radius")] public double CoveringRadius { get; set; }
        [DataMember(Name = "seed")] public long Seed { get; set; }
        [DataMember(Name = "heatmap_max")] public double HeatmapMax { get; set; }
        /// <summary>Shape that the learned images were sent with, as JSON; null without one, or if it is not the same
        /// for all.</summary>
        [DataMember(Name = "shape")] public string Shape { get; set; }
        /// <summary>Kept versions, newest first; without those whose manifest is damaged.</summary>
        [DataMember(Name = "versions")] public VersionAnswer[] Versions { get; set; }
        [DataMember(Name = "images")] public OkImageAnswer[] Images { get; set; }
        [DataMember(Name = "excluded_images")] public ExcludedImageAnswer[] ExcludedImages { get; set; }
    }

    /// <summary>A kept version. POST …/rollback makes it the current one.</summary>
    [DataContract]
    public sealed class VersionAnswer
    {
        [DataMember(Name = "version")] public int Version { get; set; }
        [DataMember(Name = "created_at")] public string CreatedAt { get; set; }
        /// <summary>One of: memory-bank, student-teacher.</summary>
        [DataMember(Name = "detector")] public string Detector { get; set; }
        /// <summary>Number of learned OK images.</summary>
        [DataMember(Name = "n_ok")] public int NOk { get; set; }
        [DataMember(Name = "n_embeddings")] public int NEmbeddings { get; set; }
        /// <summary>Whether it is in use.</summary>
        [DataMember(Name = "current")] public bool Current { get; set; }
    }

    /// <summary>A learned OK image of an ROI.</summary>
    [DataContract]
    public sealed class OkImageAnswer
    {
        [DataMember(Name = "sha256")] public string Sha256 { get; set; }
        [DataMember(Name = "file_name")] public string FileName { get; set; }
        [DataMember(Name = "width")] public int Width { get; set; }
        [DataMember(Name = "height")] public int Height { get; set; }
        [DataMember(Name = "added_in")] public int AddedIn { get; set; }
        /// <summary>Score against the bank without this image.</summary>
        [DataMember(Name = "score")] public double? Score { get; set; }
        [DataMember(Name = "robust_z")] public double? RobustZ { get; set; }
        [DataMember(Name = "suspect")] public bool Suspect { get; set; }
    }

    /// <summary>An image that was sent as OK and is excluded from the bank.</summary>
    [DataContract]
    public sealed class ExcludedImageAnswer
    {
        [DataMember(Name = "sha256")] public string Sha256 { get; set; }
        [DataMember(Name = "file_name")] public string FileName { get; set; }
        [DataMember(Name = "width")] public int Width { get; set; }
        [DataMember(Name = "height")] public int Height { get; set; }
        [DataMember(Name = "excluded_in")] public int ExcludedIn { get; set; }
        [DataMember(Name = "reason")] public string Reason { get; set; }
        /// <summary>Score against the bank of all other images, when it was excluded.</summary>
        [DataMember(Name = "score")] public double Score { get; set; }
        [DataMember(Name = "robust_z")] public double RobustZ { get; set; }
    }

    /// <summary>The changes of an ROI, newest first, also of a deleted ROI.</summary>
    [DataContract]
    public sealed class AuditAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "entries")] public AuditEntry[] Entries { get; set; }
    }

    /// <summary>A change of an ROI.</summary>
    [DataContract]
    public sealed class AuditEntry
    {
        [DataMember(Name = "id")] public string Id { get; set; }
        /// <summary>When the change started, UTC.</summary>
        [DataMember(Name = "time")] public string Time { get; set; }
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        /// <summary>One of: fit, calibrate, rollback, delete, delete_ok_image, import, publish, store_images,
        /// label_image, delete_images.</summary>
        [DataMember(Name = "action")] public string Action { get; set; }
        /// <summary>Name of the API key.</summary>
        [DataMember(Name = "actor")] public string Actor { get; set; }
        /// <summary>Address of the client.</summary>
        [DataMember(Name = "client")] public string Client { get; set; }
        /// <summary>X-Request-ID.</summary>
        [DataMember(Name = "request_id")] public string RequestId { get; set; }
        [DataMember(Name = "version_before")] public int? VersionBefore { get; set; }
        [DataMember(Name = "version_after")] public int? VersionAfter { get; set; }
        [DataMember(Name = "threshold_before")] public double? ThresholdBefore { get; set; }
        [DataMember(Name = "threshold_after")] public double? ThresholdAfter { get; set; }
        [DataMember(Name = "n_ok_before")] public int NOkBefore { get; set; }
        [DataMember(Name = "n_ok_after")] public int NOkAfter { get; set; }
        /// <summary>One of: done, failed, unknown.</summary>
        [DataMember(Name = "outcome")] public string Outcome { get; set; }
        /// <summary>Stored images that the change concerns.</summary>
        [DataMember(Name = "n_images")] public int? NImages { get; set; }
        /// <summary>Their label after it; null where they were deleted.</summary>
        [DataMember(Name = "label")] public string Label { get; set; }
        /// <summary>Id of the image, where it is one.</summary>
        [DataMember(Name = "image")] public string Image { get; set; }
        /// <summary>Code of the error if it failed.</summary>
        [DataMember(Name = "error")] public string Error { get; set; }
    }

    /// <summary>Comparison of recent inspections with the OK images of the fit.</summary>
    [DataContract]
    public sealed class DriftAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "version")] public int Version { get; set; }
        /// <summary>Largest number of inspections in the window.</summary>
        [DataMember(Name = "window")] public int Window { get; set; }
        /// <summary>Inspections in the window with this version.</summary>
        [DataMember(Name = "n")] public int N { get; set; }
        /// <summary>Inspections judged OK among them; before calibration all of them.</summary>
        [DataMember(Name = "n_ok")] public int NOk { get; set; }
        /// <summary>Number of leave-one-out scores of the fit.</summary>
        [DataMember(Name = "n_reference")] public int NReference { get; set; }
        /// <summary>Two-sample Kolmogorov-Smirnov statistic of the scores.</summary>
        [DataMember(Name = "ks")] public double? Ks { get; set; }
        /// <summary>One-sided statistic: recent scores are higher.</summary>
        [DataMember(Name = "ks_up")] public double? KsUp { get; set; }
        [DataMember(Name = "ks_down")] public double? KsDown { get; set; }
        /// <summary>p-value of ks.</summary>
        [DataMember(Name = "p_value")] public double? PValue { get; set; }
        /// <summary>Share of recent scores above the threshold that applied to them.</summary>
        [DataMember(Name = "above_threshold")] public double? AboveThreshold { get; set; }
        /// <summary>Share of recent inspections judged NG, by score or by region.</summary>
        [DataMember(Name = "rejected")] public double? Rejected { get; set; }
        [DataMember(Name = "brightness")] public ShiftAnswer Brightness { get; set; }
        /// <summary>Of the logarithm of the sharpness.</summary>
        [DataMember(Name = "sharpness")] public ShiftAnswer Sharpness { get; set; }
        /// <summary>Signals whose drift chance does not explain.</summary>
        [DataMember(Name = "alarms")] public string[] Alarms { get; set; }
        /// <summary>Why a value is null.</summary>
        [DataMember(Name = "reason")] public string Reason { get; set; }
        /// <summary>Time of the oldest inspection in the window, in seconds since 1970.</summary>
        [DataMember(Name = "since")] public double? Since { get; set; }
        [DataMember(Name = "until")] public double? Until { get; set; }
        [DataMember(Name = "histogram")] public DriftHistogram Histogram { get; set; }
    }

    /// <summary>Mean of recent images, compared with the mean of the OK images.</summary>
    [DataContract]
    public sealed class ShiftAnswer
    {
        [DataMember(Name = "mean")] public double Mean { get; set; }
        [DataMember(Name = "ok_mean")] public double OkMean { get; set; }
        /// <summary>Difference of the means, in standard deviations of the OK images.</summary>
        [DataMember(Name = "shift")] public double Shift { get; set; }
        /// <summary>Difference of the means, in standard errors of that difference.</summary>
        [DataMember(Name = "z")] public double Z { get; set; }
    }

    /// <summary>Score counts of OK images and of recent inspections in the same bins.</summary>
    [DataContract]
    public sealed class DriftHistogram
    {
        /// <summary>Bin edges, one more than there are bins.</summary>
        [DataMember(Name = "edges")] public double[] Edges { get; set; }
        /// <summary>Leave-one-out scores of the fit.</summary>
        [DataMember(Name = "ok_images")] public int[] OkImages { get; set; }
        /// <summary>Scores of recent inspections judged OK.</summary>
        [DataMember(Name = "recent")] public int[] Recent { get; set; }
    }

    /// <summary>Answers of the other endpoints about an ROI, taken at the same time.</summary>
    [DataContract]
    public sealed class ReportAnswer
    {
        [DataMember(Name = "role_id")] public string RoleId { get; set; }
        [DataMember(Name = "roi_id")] public string RoiId { get; set; }
        [DataMember(Name = "recipe_id")] public string RecipeId { get; set; }
        [DataMember(Name = "made_at")] public string MadeAt { get; set; }
        /// <summary>Version of the gateway.</summary>
        [DataMember(Name = "gateway")] public string Gateway { get; set; }
        [DataMember(Name = "roi")] public RoiDetail Roi { get; set; }
        [DataMember(Name = "bank")] public BankAnswer Bank { get; set; }
        /// <summary>Null before a calibration, and for one that the peak did not decide.</summary>
        [DataMember(Name = "peaks")] public PeaksAnswer Peaks { get; set; }
        [DataMember(Name = "drift")] public DriftAnswer Drift { get; set; }
        /// <summary>Smallest number of inspections that drift needs.</summary>
        [DataMember(Name = "drift_needs")] public int DriftNeeds { get; set; }
        /// <summary>The newest entries of /audit.</summary>
        [DataMember(Name = "audit")] public AuditEntry[] Audit { get; set; }
    }

    /// <summary>How the memory bank or the student-teacher model was made. Values that only a bank has are 0 for the
    /// latter.</summary>
    [DataContract]
    public sealed class BankAnswer
    {
        [DataMember(Name = "extractor")] public string Extractor { get; set; }
        [DataMember(Name = "token_hw")] public int[] TokenHw { get; set; }
        [DataMember(Name = "dim")] public int Dim { get; set; }
        [DataMember(Name = "k")] public int K { get; set; }
        [DataMember(Name = "p_score")] public double PScore { get; set; }
        [DataMember(Name = "n_tokens_total")] public int NTokensTotal { get; set; }
    }

    /// <summary>Histogram of the peaks of the OK images that the calibration was made from.</summary>
    [DataContract]
    public sealed class PeaksAnswer
    {
        [DataMember(Name = "edges")] public double[] Edges { get; set; }
        [DataMember(Name = "ok_images")] public int[] OkImages { get; set; }
    }

    /// <summary>The process is alive.</summary>
    [DataContract]
    public sealed class HealthAnswer
    {
        [DataMember(Name = "status")] public string Status { get; set; }
        /// <summary>One of: cuda, cpu.</summary>
        [DataMember(Name = "device")] public string Device { get; set; }
        [DataMember(Name = "model")] public string Model { get; set; }
        [DataMember(Name = "version")] public string Version { get; set; }
        /// <summary>One of: embedded, triton.</summary>
        [DataMember(Name = "engine")] public string Engine { get; set; }
        /// <summary>Runtime that computes tokens, such as openvino-bf16.</summary>
        [DataMember(Name = "runtime")] public string Runtime { get; set; }
        /// <summary>Why the network computes in this precision; null on a GPU.</summary>
        [DataMember(Name = "runtime_reason")] public string RuntimeReason { get; set; }
        /// <summary>Library that finds nearest neighbours.</summary>
        [DataMember(Name = "search")] public string Search { get; set; }
        /// <summary>Null while no model is loaded or reachable.</summary>
        [DataMember(Name = "model_fingerprint")] public string ModelFingerprint { get; set; }
        /// <summary>Origin of the weights; seed: random weights, scores mean nothing; stand-in: fine-tuned weights, not
        /// stock DINOv2. One of: hub, file, seed, stand-in.</summary>
        [DataMember(Name = "model_weights")] public string ModelWeights { get; set; }
    }

    /// <summary>Body of every error answer.</summary>
    [DataContract]
    public sealed class ErrorEnvelope
    {
        [DataMember(Name = "error")] public ErrorBody Error { get; set; }
    }

    /// <summary>What is wrong with which value, and what to do about it.</summary>
    [DataContract]
    public sealed class ErrorBody
    {
        [DataMember(Name = "code")] public string Code { get; set; }
        [DataMember(Name = "message")] public string Message { get; set; }
        [DataMember(Name = "hint")] public string Hint { get; set; }
    }
    // </models>
}
