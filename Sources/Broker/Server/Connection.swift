internal import Runtime
internal import System
import Wire

/// One client's connection: cuts the byte stream into requests and sends the answers in their order.
///
/// Requests are taken up as they come, also while earlier ones wait for the disk or for records to arrive: that is what
/// lets the batches of one pipelining producer share a synchronization. A client that does not read its answers,
/// or asks faster than they can be given, is *held back*: its requests stay where they are until it has caught up. So is
/// everyone while the journal has a backlog or the connections hold too much between them (`HeldBytes`).
final class Connection: StreamDelegate {
    private unowned let broker: BrokerCore
    private(set) var stream: Stream?

    /// What came and was not taken up: an incomplete request, whole ones too while this connection is held back.
    private var unread: [UInt8] = []

    private struct Answer {
        /// `nil` while it is being worked out.
        var frame: [UInt8]?
        /// The request may be kept until then.
        var requestBytes: Int
    }
    /// Answers not yet sent, the oldest first.
    private var answers: [Answer] = []
    private var head = 0
    private var firstSlot: UInt64 = 0
    private var requestBytes = 0
    /// In answers that wait for an earlier one.
    private var waitingBytes = 0
    /// Fetches of this connection that wait for records.
    private var fetches: [ObjectIdentifier: FetchWaiter] = [:]
    private var isDone = false
    private var isHeldBack = false
    private var isResuming = false
    /// Whether `HeldBytes` will wake it.
    var waitsForRelief = false
    /// What `HeldBytes` has been told.
    private var reportedBytes = 0
    private var reportedRequests = 0

    private static let answersMax = 2048
    private static let answerBytesMax = 8 << 20
    private static let requestBytesMax = 32 << 20

    init(_ socket: consuming Socket, broker: BrokerCore, loop: EventLoop) throws(SystemError) {
        self.broker = broker
        stream = try Stream(
            socket, on: loop, delegate: self, limits: StreamLimits(bytes: 128 << 20, fragments: 65_536))
    }

    var clientHost: String { stream?.peerAddress?.host ?? "" }
    /// The address at which this client reached the broker: what it is told when nothing is advertised.
    var localAddress: SocketAddress? { stream?.localAddress }

    func close() { stream?.close() }

    /// Closes the connection of a client that breaks the protocol or costs too much, with one line in the log.
    func refuse(_ error: BrokerError) {
        guard !isDone else { return }
        isDone = true
        broker.log.warning(
            "closing a connection", ["peer": .string(clientHost), "reason": .string(error.description)])
        stream?.close()
    }

    // MARK: Requests

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        guard !isHeldBack else { return unread.append(bytes) }
        do throws(BrokerError) {
            var start = 0
            if !unread.isEmpty {
                start = try complete(with: bytes)
                try takeUnread()
            }
            if unread.isEmpty { start += try take(bytes.extracting(start..<bytes.count)) }
            if start < bytes.count, !isDone { unread.append(bytes.extracting(start..<bytes.count)) }
            if mustHoldBack { holdBack() }
            report()
        } catch {
            refuse(error)
        }
    }

    /// Adds to the incomplete request what belongs to it; how many bytes that were.
    private func complete(with bytes: Span<UInt8>) throws(BrokerError) -> Int {
        var used = 0
        if unread.count < 4 {
            used = min(4 - unread.count, bytes.count)
            unread.append(bytes.extracting(0..<used))
        }
        guard let size = try unreadSize() else { return used }
        // Claimed sizes are reserved only as far as an honest client often goes; the rest grows with what arrives.
        if unread.capacity < size + 4, size <= 2 << 20 { unread.reserveCapacity(size + 4) }
        let more = min(size + 4 - unread.count, bytes.count - used)
        unread.append(bytes.extracting(used..<used + more))
        return used + more
    }

    private func unreadSize() throws(BrokerError) -> Int? {
        let held = unread
        return try frameSize(held.span)
    }

    private func frameSize(_ bytes: Span<UInt8>) throws(BrokerError) -> Int? {
        guard bytes.count >= 4 else { return nil }
        let size = Int(bytes.bigEndian(at: 0, as: Int32.self))
        guard size >= 8, size <= broker.configuration.requestBytesMax else {
            throw .malformed("a request of \(size) bytes")
        }
        return size
    }

    private func takeUnread() throws(BrokerError) {
        guard let size = try unreadSize(), unread.count >= size + 4 else { return }
        var held: [UInt8] = []
        swap(&held, &unread)
        let taken = try take(held.span)
        if taken < held.count { unread.append(held.span.extracting(taken..<held.count)) }
    }

    /// Takes up the whole requests that `bytes` begin with, until this connection is to be held back; how many bytes
    /// they were.
    private func take(_ bytes: Span<UInt8>) throws(BrokerError) -> Int {
        var start = 0
        while !isDone, let size = try frameSize(bytes.extracting(start..<bytes.count)), bytes.count - start >= size + 4,
            !mustHoldBack
        {
            try takeRequest(bytes.extracting(start + 4..<start + 4 + size))
            start += 4 + size
        }
        return start
    }

    private func takeRequest(_ frame: Span<UInt8>) throws(BrokerError) {
        var reader = RequestReader(frame)
        let header = try RequestHeader(from: &reader)
        answers.append(Answer(requestBytes: frame.count))
        requestBytes += frame.count
        let slot = firstSlot + UInt64(answers.count - head - 1)
        let reply = Reply(connection: self, slot: slot, header: header, flexible: reader.flexible)
        try broker.handle(&reader, reply)
    }

    // MARK: Answers

    /// Gives the answer of one request; an empty one means that the client expects none.
    func respond(_ slot: UInt64, _ frame: [UInt8]) {
        guard let stream, !isDone, slot >= firstSlot else { return }
        let index = head + Int(slot - firstSlot)
        requestBytes -= answers[index].requestBytes
        waitingBytes += frame.count
        answers[index].frame = frame
        while head < answers.count, let frame = answers[head].frame {
            waitingBytes -= frame.count
            if !frame.isEmpty, stream.write(frame) != .queued {
                isDone = true
                stream.close()
                return
            }
            answers[head].frame = nil
            head += 1
            firstSlot += 1
        }
        if head == answers.count {
            answers.removeAll(keepingCapacity: head < 64)
            head = 0
        } else if head > 256 {
            answers.removeFirst(head)
            head = 0
        }
        report()
        resumeIfPossible()
    }

    /// How much more may be answered before the client has read what there is.
    var answerRoom: Int { max(0, Self.answerBytesMax - waitingBytes - (stream?.queuedBytes ?? 0)) }

    func add(_ fetch: FetchWaiter) { fetches[ObjectIdentifier(fetch)] = fetch }
    func remove(_ fetch: FetchWaiter) { fetches[ObjectIdentifier(fetch)] = nil }

    // MARK: Holding back

    var heldBytes: Int { unread.count + requestBytes + waitingBytes + (stream?.queuedBytes ?? 0) }

    /// Tells what is held now, which changes without notice when a socket takes what was written.
    func report() {
        let held = heldBytes
        broker.held.change(by: held - reportedBytes, requests: unanswered - reportedRequests)
        reportedBytes = held
        reportedRequests = unanswered
    }

    private var unanswered: Int { answers.count - head }

    private var mustHoldBack: Bool {
        unanswered >= Self.answersMax || requestBytes >= Self.requestBytesMax || answerRoom == 0
            || broker.commits.isBacklogged || broker.held.isFull
    }

    private func holdBack() {
        guard !isDone, !isHeldBack else { return }
        isHeldBack = true
        stream?.pauseReading()
        resumeIfPossible()
    }

    /// What this connection causes itself ends with one of its answers or a drained socket; of the rest it has to be told.
    func resumeIfPossible() {
        guard isHeldBack, !isResuming else { return }
        if broker.commits.isBacklogged || broker.held.isFull { return broker.held.wakeWhenRelieved(self) }
        guard !mustHoldBack else { return }
        // Not from inside another request, which may be what gave the answer.
        isResuming = true
        broker.loop.atTickEnd { [weak self] in self?.resume() }
    }

    private func resume() {
        isResuming = false
        guard let stream, !isDone else { return }
        isHeldBack = false
        do throws(BrokerError) {
            try takeUnread()
            report()
        } catch {
            return refuse(error)
        }
        if mustHoldBack { holdBack() } else { stream.resumeReading() }
    }

    func streamDrained(_ stream: Stream) {
        report()
        resumeIfPossible()
    }

    func streamEnded(_ stream: Stream) {
        isDone = true
        stream.close()
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        isDone = true
        self.stream = nil
        unread = []
        answers = []
        head = 0
        requestBytes = 0
        waitingBytes = 0
        report()
        for fetch in fetches.values { fetch.cancel() }
        broker.closed(self)
    }
}
