import HTTPClient
import Runtime
import Store
import System
import Wire

/// POSTs notices to the webhook, one or several a request. On the loop's thread only.
final class WebhookSender {
    /// A notice, and the tokens by which the webhook's own receivers know the person's devices.
    struct Item {
        let notice: Notice
        let devices: [PushDevices.Token]
        let onSettled: (Courier.Fate) -> Void
    }

    private let configuration: PushConfiguration
    private let url: String
    private let clock: any Clock
    private let client: HTTPClient
    private let courier: Courier
    private var json = JSONWriter()
    /// Tokens of which the webhook says that they are no longer good.
    var onGone: ((_ user: UserID, PushDevices.Token) -> Void)?

    init(
        _ configuration: PushConfiguration, url: String, on loop: EventLoop, clock: any Clock, metrics: PushMetrics
    ) throws(HTTPError) {
        self.configuration = configuration
        self.url = url
        self.clock = clock
        var options = HTTPClient.Options()
        options.connectionsMax = configuration.concurrency
        options.timeoutMs = configuration.timeoutMs
        options.certificateAuthorities = configuration.certificateAuthorities
        client = try HTTPClient(loop: loop, options: options)
        courier = Courier(
            client, limits: Courier.Limits(concurrency: configuration.concurrency), retry: configuration.retry,
            breaker: configuration.breaker, on: loop, clock: clock, metrics: metrics)
    }

    /// How many notices could be taken now.
    var room: Int { courier.room * configuration.batchMax }

    var isAway: Bool { courier.isHeldBack }

    func send(_ items: [Item]) {
        var start = 0
        while start < items.count {
            let end = min(start + configuration.batchMax, items.count)
            send(batch: Array(items[start..<end]))
            start = end
        }
    }

    func close() {
        courier.close()
        client.close()
    }

    private func send(batch: [Item]) {
        courier.send(
            Courier.Parcel { [unowned self] in
                request(for: batch)
            } onSettled: { [unowned self] fate in
                forgetGone(fate, batch)
                for item in batch { item.onSettled(fate) }
            })
    }

    private func request(for batch: [Item]) -> HTTPRequest {
        json.removeAll()
        let nowMs = clock.wallMs
        if configuration.batchMax > 1 { json.beginArray() }
        for item in batch {
            NoticeBody.write(
                item.notice, devices: item.devices, showsPreview: configuration.showsPreview, nowMs: nowMs, to: &json)
        }
        if configuration.batchMax > 1 { json.endArray() }
        var headers = [(name: "Content-Type", value: "application/json")]
        headers.append((name: "Idempotency-Key", value: key(of: batch)))
        if let secret = configuration.secret {
            headers.append(
                (name: "X-Fanout-Signature", value: Signature.header(secret: secret, body: json.bytes, nowMs: nowMs)))
        }
        return HTTPRequest("POST", url, headers: headers, body: json.bytes)
    }

    /// Another batch has another key, even if it begins with the same notice.
    private func key(of batch: [Item]) -> String {
        if configuration.batchMax == 1 { return batch[0].notice.idempotencyKey }
        var ids: [UInt8] = []
        for item in batch {
            if !ids.isEmpty { ids.append(UInt8(ascii: "\n")) }
            item.notice.appendIdempotencyKey(to: &ids)
        }
        return "batch/" + Base64.encode(Crypto.sha256(ids), .url)
    }

    /// The webhook names tokens in its answer; or, for a notice by itself, says that all of its devices are gone. A 404 is
    /// more likely a wrong URL, and must not empty the registry.
    private func forgetGone(_ fate: Courier.Fate, _ batch: [Item]) {
        guard let onGone, batch.contains(where: { !$0.devices.isEmpty }) else { return }
        switch fate {
        case .refused(let refusal):
            guard refusal.status == 410, configuration.batchMax == 1 else { return }
            for device in batch[0].devices { onGone(batch[0].notice.user, device) }
        case .accepted(let response):
            guard !response.body.isEmpty else { return }
            let gone = GoneTokens(response.body).tokens
            guard !gone.isEmpty else { return }
            for item in batch {
                for device in item.devices where gone.contains(device.token) { onGone(item.notice.user, device) }
            }
        }
    }
}

/// What a webhook may answer: `{"gone":["token",…]}`. Anything else is no answer to this question.
struct GoneTokens {
    private(set) var tokens: Set<String> = []

    private enum Field: String, CaseIterable { case gone }
    private static let fields = JSONFields<Field>()

    init(_ body: [UInt8]) {
        do throws(JSONError) {
            var reader = JSONReader(body.span)
            try reader.beginObject()
            while let name = try reader.nextField() {
                guard Self.fields.find(name, in: body.span) == .gone else {
                    try reader.skipValue()
                    continue
                }
                try reader.beginArray()
                while try reader.nextElement() { tokens.insert(try reader.readText()) }
            }
        } catch {
            return
        }
    }
}

/// The signature that lets a webhook know who calls: an HMAC over the time and the body, so that neither can be changed
/// and an old request cannot be played again.
public enum Signature {
    public static func header(secret: String, body: [UInt8], nowMs: Int64) -> String {
        let seconds = nowMs / 1000
        let mac = Crypto.hmacSHA256(key: Array(secret.utf8), Array("\(seconds).".utf8) + body)
        let digits = Array("0123456789abcdef".utf8)
        var hex: [UInt8] = []
        for byte in mac { hex += [digits[Int(byte >> 4)], digits[Int(byte & 15)]] }
        return "t=\(seconds),v1=\(String(decoding: hex, as: UTF8.self))"
    }
}
