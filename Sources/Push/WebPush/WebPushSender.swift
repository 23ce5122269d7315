import HTTPClient
import Runtime
import Store
import System
import Wire

/// Sends notices to browsers through their push services. On the loop's thread only.
///
/// The endpoints are what users say they are, so each origin has a courier of its own: one that hangs holds up nobody
/// else, and gets no more than its share of the connections. None may lie inside our own network.
final class WebPushSender {
    /// Parcels that wait, over all origins; above it no notices are taken.
    private static let pendingMax = 20_000
    /// Of which one origin may have so many; more are refused.
    private static let pendingPerOriginMax = 10_000

    private let configuration: PushConfiguration
    private let options: WebPushOptions
    private let loop: EventLoop
    private let clock: any Clock
    private let metrics: PushMetrics
    private let client: HTTPClient
    private let vapid: VAPID
    private var couriers: [String: Courier] = [:]
    private var pending = 0

    init(
        _ configuration: PushConfiguration, _ options: WebPushOptions, on loop: EventLoop, clock: any Clock,
        metrics: PushMetrics
    ) throws {
        self.configuration = configuration
        self.options = options
        self.loop = loop
        self.clock = clock
        self.metrics = metrics
        vapid = try VAPID(key: options.key, subject: options.subject)
        var http = HTTPClient.Options()
        http.connectionsMax = configuration.concurrency
        http.timeoutMs = configuration.timeoutMs
        http.certificateAuthorities = configuration.certificateAuthorities
        http.refusesPrivateAddresses = !options.allowsPrivateAddresses
        client = try HTTPClient(loop: loop, options: http)
    }

    var room: Int { max(0, Self.pendingMax - pending) }

    func send(
        _ notice: Notice, to subscription: PushDevices.Subscription, _ onSettled: @escaping (Courier.Fate) -> Void
    ) {
        guard let origin = PushEndpoint(subscription.endpoint)?.origin else {
            return onSettled(.refused(.init(status: nil, reason: "the endpoint is no URL", tries: 0)))
        }
        let courier = courier(for: origin)
        guard courier.pending < Self.pendingPerOriginMax else {
            return onSettled(.refused(.init(status: nil, reason: "too many wait for \(origin)", tries: 0)))
        }
        pending += 1
        courier.send(
            Courier.Parcel(deadlineMs: clock.wallMs + options.giveUpMs) { [unowned self] in
                request(notice, subscription, origin)
            } onSettled: { [unowned self] fate in
                pending -= 1
                onSettled(fate)
            })
    }

    func close() {
        for courier in couriers.values { courier.close() }
        client.close()
    }

    var isAnyAway: Bool { couriers.values.contains { $0.isHeldBack } }

    private func courier(for origin: String) -> Courier {
        if let known = couriers[origin] { return known }
        if couriers.count >= VAPID.originsMax {
            for (origin, courier) in couriers where courier.isIdle {
                courier.close()
                couriers[origin] = nil
            }
        }
        let made = Courier(
            client, limits: Courier.Limits(concurrency: max(1, configuration.concurrency / 2)),
            retry: configuration.retry, breaker: configuration.breaker, on: loop, clock: clock, metrics: metrics)
        couriers[origin] = made
        return made
    }

    private func request(_ notice: Notice, _ subscription: PushDevices.Subscription, _ origin: String) -> HTTPRequest? {
        let nowMs = clock.wallMs
        guard
            let body = try? WebPushMessage.encrypt(
                text(of: notice, nowMs), receiver: subscription.publicKey, secret: subscription.secret),
            let authorization = try? vapid.authorization(origin: origin, nowMs: nowMs)
        else { return nil }
        var headers = [
            (name: "Authorization", value: authorization), (name: "Content-Encoding", value: "aes128gcm"),
            (name: "Content-Type", value: "application/octet-stream"), (name: "TTL", value: "\(options.ttlSeconds)"),
            (name: "Urgency", value: notice.isMention ? "high" : "normal"),
        ]
        // While the device is away, a chat's newer notice takes the older one's place.
        if notice.chats.count == 1 {
            headers.append((name: "Topic", value: Self.topic(notice.user, notice.chats[0].chat)))
        }
        return HTTPRequest("POST", subscription.endpoint, headers: headers, body: body)
    }

    /// A notice of many chats is told with less of each, until it fits.
    private func text(of notice: Notice, _ nowMs: Int64) -> [UInt8] {
        var showsPreview = configuration.showsPreview
        var chatsMax = notice.chats.count
        var json = JSONWriter()
        while true {
            json.removeAll()
            NoticeBody.write(notice, showsPreview: showsPreview, chatsMax: chatsMax, nowMs: nowMs, to: &json)
            if json.bytes.count <= WebPushMessage.textBytesMax || chatsMax == 0 { return json.bytes }
            if showsPreview { showsPreview = false } else { chatsMax /= 2 }
        }
    }

    /// At most 32 letters that tell the push service nothing of the chat.
    static func topic(_ user: UserID, _ chat: ChatID) -> String {
        Base64.encode(Array(Crypto.sha256(Array("\(user)/\(chat)".utf8)).prefix(24)), .url)
    }
}
