import PushLink
import Runtime
import System
import WebSocket
import Wire

/// What has to be looked at now and then: who is silent, whose token has run out, which cursors are to be stored. A part of
/// the clients each tick, so that no tick is long.
final class Sweep {
    private unowned let chat: ChatLoop
    private var nextSlot = 0
    private var ticks = 0
    /// Of the round under way.
    private var queuedBytes = 0
    /// What the gauges have been told of this loop's queues; they are all loops' together.
    private var told = (queuedBytes: 0, logQueue: 0, underWay: 0, databaseCalls: 0)
    private static let tickMs = 250
    /// All clients are looked at in this many ticks.
    private static let ticksPerRound = 8

    init(_ chat: ChatLoop) { self.chat = chat }

    func start() { schedule() }

    private func schedule() {
        chat.loop.schedule(afterMs: Self.tickMs) { [weak self] in
            guard let self else { return }
            tick()
            schedule()
        }
    }

    private func tick() {
        ticks += 1
        chat.links.tick()
        chat.writer.learnNumbers(chat)
        chat.tellDelivered()
        let count = chat.clients.slotCount
        let end = min(nextSlot + count / Self.ticksPerRound + 1, count)
        for slot in nextSlot..<end {
            guard let client = chat.clients.client(inSlot: slot) else { continue }
            queuedBytes += client.stream?.queuedBytes ?? 0
            look(at: client)
        }
        nextSlot = end >= count ? 0 : end
        if nextSlot == 0 {
            tell(chat.metrics.queuedBytes, &told.queuedBytes, queuedBytes)
            queuedBytes = 0
        }
        guard ticks % 4 == 0 else { return }
        chat.health.look(chat.writer, chat.database)
        if ticks % 8 == 0 { chat.database?.ping() }
        chat.writer.announce(chat)
        tell(chat.metrics.logQueue, &told.logQueue, chat.writer.queuedCount)
        tell(chat.metrics.underWay, &told.underWay, chat.writer.underWay)
        tell(chat.metrics.databaseCalls, &told.databaseCalls, chat.database?.pendingCount ?? 0)
        storeCursors()
        if ticks % 256 == 0 { dropFullBuckets() }
    }

    private func tell(_ gauge: Gauge, _ told: inout Int, _ now: Int) {
        gauge.add(now - told)
        told = now
    }

    private func look(at client: Client) {
        let limits = chat.configuration.limits
        let now = chat.nowS
        guard let session = client.session else {
            guard let conversation = client.conversation, !conversation.isBusy else { return }
            let limitMs = conversation.hasServed ? limits.keepAliveMs : limits.handshakeMs
            guard Int(now &- client.sinceS) * 1000 > limitMs else { return }
            if !conversation.parser.isIdle {
                let answer = HTTPAnswer.error(408, "timeout", "the request took too long")
                client.stream?.write(answer.encode(keepsAlive: false))
            }
            return chat.end(client)
        }
        let silentMs = Int(now &- client.heardAtS) * 1000
        switch session.state {
        case .closing: break
        case .awaitingHello:
            if Int(now &- client.sinceS) * 1000 > limits.handshakeMs {
                chat.refuse(client, .clientError, "no hello")
            }
        case .starting, .active:
            // As long as a new session would be let in with the token, so clocks that differ end none early.
            let skewMs = chat.configuration.tokens.skewMs
            if Int64(session.expiresAtS) * 1000 + skewMs <= chat.loop.nowMs {
                chat.refuse(client, .unauthorised, TokenError.expired.rawValue)
            } else if silentMs >= limits.silenceMs, client.stream?.isReadingPaused != true {
                chat.refuse(client, .silent, "nothing heard")
            } else if silentMs >= limits.silenceMs / 2, !client.isPinged {
                client.isPinged = true
                client.send(ServerFrame.ping)
            }
        }
    }

    private func storeCursors() {
        guard !chat.cursors.isEmpty else { return }
        var waiting: [ChatLoop.DeviceKey: Cursor] = [:]
        swap(&waiting, &chat.cursors)
        let rest = chat.links.store(
            waiting.map { DeviceCursor(user: $0.key.user, device: $0.key.device, cursor: $0.value) })
        for cursor in rest {
            let key = ChatLoop.DeviceKey(user: cursor.user, device: cursor.device)
            // Without an owner to store it the next second tries again, but only for devices that are here.
            if chat.devices[key] != nil { chat.cursors[key] = cursor.cursor }
        }
    }

    private func dropFullBuckets() {
        let limits = chat.configuration.limits
        let limit = RateLimit(burst: limits.messages, periodMs: limits.messagesPerMs)
        let nowMs = Int64(chat.loop.monotonicMs)
        chat.buckets = chat.buckets.filter { !$0.value.isFull(limit, nowMs: nowMs) }
    }
}
