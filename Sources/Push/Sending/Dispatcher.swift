import Runtime
import Store
import System
import Wire

/// From notices that are due to records that are settled: asks the address book, hands each notice to the webhook and to
/// the push services of the person's browsers, and buries what nobody takes. On the loop's thread only.
final class Dispatcher {
    /// A notice under way to all who are to get it.
    private final class Envelope {
        let notice: Notice
        var left: Int
        var wasAccepted = false
        var failures: [(refusal: Courier.Refusal, device: DeviceID?)] = []

        init(_ notice: Notice, left: Int) {
            self.notice = notice
            self.left = left
        }
    }

    /// Notices that are asked about at once, where nothing else bounds them.
    private static let roomMax = 4000

    private let configuration: PushConfiguration
    private let clock: any Clock
    private let metrics: PushMetrics
    private let dead: DeadLetters
    private let book: AddressBook?
    private let webhook: WebhookSender?
    private let webPush: WebPushSender?
    /// Nothing more will be done for these records.
    var onSettled: (([RecordPosition]) -> Void)?
    /// The person's notice is no longer under way.
    var onFinished: ((_ user: UserID, _ wasTold: Bool) -> Void)?

    init(
        _ configuration: PushConfiguration, dead: DeadLetters, on loop: EventLoop, clock: any Clock,
        metrics: PushMetrics
    ) throws {
        self.configuration = configuration
        self.dead = dead
        self.clock = clock
        self.metrics = metrics
        let isReal = !configuration.dryRun
        if isReal, let url = configuration.webhook {
            webhook = try WebhookSender(configuration, url: url, on: loop, clock: clock, metrics: metrics)
        } else {
            webhook = nil
        }
        if isReal, let options = configuration.webPush {
            webPush = try WebPushSender(configuration, options, on: loop, clock: clock, metrics: metrics)
        } else {
            webPush = nil
        }
        let (asksForSubscriptions, asksForTokens) = (webPush != nil, webhook != nil)
        book = configuration.postgres.map {
            AddressBook(
                $0, on: loop, asksForSubscriptions: asksForSubscriptions, asksForTokens: asksForTokens)
        }
        webhook?.onGone = { [unowned self] user, token in
            metrics.gone.add()
            book?.forget(token, of: user)
        }
    }

    /// How many notices could be taken now.
    var room: Int {
        let sendersRoom = min(webhook?.room ?? Self.roomMax, webPush?.room ?? Self.roomMax, Self.roomMax)
        return max(0, sendersRoom - (book?.pending ?? 0))
    }

    var isWebhookAway: Bool { webhook?.isAway == true }
    var arePushServicesAway: Bool { webPush?.isAnyAway == true }
    var isDatabaseAway: Bool { book?.isAway == true }

    /// To be called every second or two.
    func askDatabase() { book?.ping() }

    func dispatch(_ notices: [Notice]) {
        guard let book else { return send(notices.map { AddressBook.Entry(notice: $0) }) }
        book.look(notices) { [unowned self] in send($0) }
    }

    func close() {
        (onSettled, onFinished) = (nil, nil)
        webhook?.close()
        webPush?.close()
        book?.close()
    }

    private func send(_ entries: [AddressBook.Entry]) {
        var items: [WebhookSender.Item] = []
        for entry in entries {
            if !entry.unwanted.isEmpty {
                metrics.muted.add()
                onSettled?(entry.unwanted)
            }
            if !entry.read.isEmpty {
                metrics.cancelled.add()
                onSettled?(entry.read)
            }
            if entry.notice.chats.isEmpty {
                onFinished?(entry.notice.user, false)
            } else if configuration.dryRun {
                show(entry.notice)
            } else {
                send(entry, &items)
            }
        }
        webhook?.send(items)
    }

    private func send(_ entry: AddressBook.Entry, _ items: inout [WebhookSender.Item]) {
        let subscriptions = webPush == nil ? [] : entry.subscriptions
        let envelope = Envelope(entry.notice, left: subscriptions.count + (webhook == nil ? 0 : 1))
        if envelope.left == 0 { return finish(envelope) }
        if webhook != nil {
            items.append(
                WebhookSender.Item(notice: entry.notice, devices: entry.tokens) { [unowned self] fate in
                    settle(envelope, fate, device: nil)
                })
        }
        for subscription in subscriptions {
            webPush?.send(entry.notice, to: subscription) { [unowned self] fate in
                if case .refused(let refusal) = fate, refusal.status == 404 || refusal.status == 410 {
                    metrics.gone.add()
                    book?.forget(subscription, of: envelope.notice.user)
                    return settle(envelope)
                }
                settle(envelope, fate, device: subscription.device)
            }
        }
    }

    private func settle(_ envelope: Envelope, _ fate: Courier.Fate, device: DeviceID?) {
        switch fate {
        case .accepted: envelope.wasAccepted = true
        case .refused(let refusal): envelope.failures.append((refusal, device))
        }
        settle(envelope)
    }

    private func settle(_ envelope: Envelope) {
        envelope.left -= 1
        if envelope.left == 0 { finish(envelope) }
    }

    private func finish(_ envelope: Envelope) {
        let (notice, failures) = (envelope.notice, envelope.failures)
        if envelope.wasAccepted {
            metrics.told.add()
        } else if failures.isEmpty {
            metrics.unreachable.add()
        } else {
            metrics.dead.add()
        }
        onFinished?(notice.user, envelope.wasAccepted)
        guard !failures.isEmpty else {
            onSettled?(notice.records)
            return
        }
        var unwritten = failures.count
        for (refusal, device) in failures {
            dead.bury(notice, error: refusal.reason, tries: refusal.tries, device: device) { [unowned self] in
                unwritten -= 1
                if unwritten == 0 { onSettled?(notice.records) }
            }
        }
    }

    private func show(_ notice: Notice) {
        var json = JSONWriter()
        NoticeBody.write(notice, showsPreview: configuration.showsPreview, nowMs: clock.wallMs, to: &json)
        Output.standard(String(decoding: json.bytes, as: UTF8.self) + "\n")
        onFinished?(notice.user, true)
        onSettled?(notice.records)
    }
}
