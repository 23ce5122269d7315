import PushLink
import Runtime
import System
import WebSocket
import Wire

/// One Delivery worker's link: its socket and its codec. On the loop's thread only.
final class LinkPeer: StreamDelegate {
    let id: UInt64
    private unowned let links: Links
    private var stream: System.Stream?
    private var link: InstanceLink
    private var isFlushDue = false
    private var sampledMs: Int64 = 0
    /// It has proved itself, and is counted.
    var wasOpen = false

    init(_ links: Links, id: UInt64, link: InstanceLink) {
        self.links = links
        self.id = id
        self.link = link
    }

    func begin(_ stream: System.Stream) { self.stream = stream }

    var name: String { link.peer?.name ?? "a stranger" }

    func stream(_ stream: System.Stream, received bytes: Span<UInt8>) {
        link.receive(bytes, nowMs: links.nowMs)
        do {
            while let event = try link.next() {
                switch event {
                case .opened(let worker): links.opened(self, worker)
                case .message(.batch(let batch)): deliver(batch)
                case .message(.page(let page)): deliver(page)
                case .message(let message): links.receive(message, from: self)
                }
            }
            link.acknowledge()
        } catch {
            links.failed(self, error)
            flush()
            stream.closeAfterFlush()
            return
        }
        flush()
    }

    private func deliver(_ batch: Batch) {
        guard links.heard(batch.cursor, of: batch.partition, from: self) else { return }
        let chat = links.chat
        var frame = link.withPayload(of: batch) { EventFrame($0) }
        let change = batch.kind == .member ? link.withPayload(of: batch) { MembershipChange(event: $0) } : nil
        let sessions = link.sessions(of: batch)
        chat.metrics.batches.add()
        chat.metrics.deliveries.add(sessions.count)
        for session in sessions { chat.deliver(&frame, batch.cursor, batch.kind, change, to: session) }
        guard batch.kind == .message else { return }
        link.withPayload(of: batch) { chat.writer.cameBack($0, nowMs: Int64(chat.loop.monotonicMs)) }
        if chat.loop.nowMs != sampledMs { sampleLatency(batch) }
    }

    /// At most once a millisecond: how old a message is when its devices' queues have it.
    private func sampleLatency(_ batch: Batch) {
        sampledMs = links.chat.loop.nowMs
        let metrics = links.chat.metrics
        metrics.fromJoin.record(ns: UInt64(max(0, sampledMs - batch.cursor.timestamp)) * 1_000_000)
        guard let sentMs = link.withPayload(of: batch, { Self.time(of: $0) }) else { return }
        metrics.endToEnd.record(ns: UInt64(max(0, sampledMs - sentMs)) * 1_000_000)
    }

    private static func time(of event: Span<UInt8>) -> Int64? {
        var reader = JSONReader(event)
        do {
            try reader.beginObject()
            while let name = try reader.nextField() {
                if name.equals("ts", in: event) { return try reader.readInt() }
                try reader.skipValue()
            }
        } catch {}
        return nil
    }

    private func deliver(_ page: FillPage) {
        let chat = links.chat
        guard let (client, session) = chat.session(page.session), links.isOwner(self, of: session) else { return }
        // One piece of the device's queue, however many events: those are limited as well as its bytes.
        var frames: [UInt8] = []
        for event in page.events {
            guard session.feed.receive(filled: event.offset, by: page.request) == .deliver else { continue }
            if event.kind == .member, let change = link.withPayload(of: event, { MembershipChange(event: $0) }) {
                chat.note(change, for: session)
            }
            link.withPayload(of: event) { Frame.append(to: &frames, .text, $0, mask: nil) }
        }
        if !frames.isEmpty { client.send(frames) }
        chat.perform(session.feed.receive(pageUpTo: page.upTo, isLast: page.isLast, by: page.request), client, session)
    }

    func send(_ message: InstanceMessage) {
        link.send(message)
        guard !isFlushDue else { return }
        isFlushDue = true
        links.chat.loop.atTickEnd { [weak self] in self?.flush() }
    }

    private func flush() {
        isFlushDue = false
        guard link.outputByteCount > 0, let stream else { return }
        if stream.write(link.takeOutput(nowMs: links.nowMs)) == .overflow {
            links.failed(self, LinkError(.tooSlow, "the worker does not read"))
            stream.close()
        }
    }

    func tick() {
        do {
            try link.tick(nowMs: links.nowMs)
        } catch {
            links.failed(self, error)
            flush()
            stream?.closeAfterFlush()
            return
        }
        flush()
    }

    func close(_ error: LinkError) {
        link.close(error)
        flush()
        stream?.closeAfterFlush()
    }

    func streamClosed(_ stream: System.Stream, reason: CloseReason) {
        self.stream = nil
        links.closed(self)
    }
}
