internal import Runtime
internal import System
import Wire

/// One client's connection: cuts the byte stream into requests and sends the answers in their order.
///
/// Requests are taken up as they come, also while earlier ones wait for the disk or for records to arrive: that is what
/// lets the batches of one pipelining producer share a synchronization. A client that does not read its answers,
/// or asks faster than they can be given, is not read from until it has caught up.
final class Connection: StreamDelegate {
    private unowned let broker: BrokerCore
    private(set) var stream: Stream?
    let peer: String

    /// An incomplete request, its size first.
    private var partial: [UInt8] = []
    /// Answers not yet sent, the oldest first; `nil` while one is being worked out.
    private var answers: [[UInt8]?] = []
    private var head = 0
    private var firstSlot: UInt64 = 0
    private var isDone = false
    private var isHeldBack = false

    private static let answersMax = 2048
    private static let queuedBytesMax = 8 << 20

    init(_ socket: consuming Socket, broker: BrokerCore, loop: EventLoop) throws(SystemError) {
        self.broker = broker
        peer = ""
        stream = try Stream(
            socket, on: loop, delegate: self, limits: StreamLimits(bytes: 128 << 20, fragments: 65_536))
    }

    var clientHost: String { stream?.peerAddress?.host ?? "" }
    /// The address at which this client reached the broker: what it is told when nothing is advertised.
    var localAddress: SocketAddress? { stream?.localAddress }

    func close() { stream?.close() }

    // MARK: Requests

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        var start = 0
        do throws(BrokerError) {
            if !partial.isEmpty {
                start = try complete(with: bytes)
                guard let size = try partialSize(), partial.count == size + 4 else { return }
                let frame = partial
                partial = []
                try take(frame.span.extracting(4..<frame.count))
            }
            while let size = try frameSize(bytes.extracting(start..<bytes.count)), bytes.count - start >= size + 4 {
                try take(bytes.extracting(start + 4..<start + 4 + size))
                start += 4 + size
                if isDone { return }
            }
            if start < bytes.count { partial.append(bytes.extracting(start..<bytes.count)) }
            holdBackIfNeeded()
        } catch {
            isDone = true
            broker.log.warning(
                "closing a connection", ["peer": .string(clientHost), "reason": .string(error.description)])
            stream.close()
        }
    }

    /// Adds to the incomplete request what belongs to it; how many bytes that were.
    private func complete(with bytes: Span<UInt8>) throws(BrokerError) -> Int {
        var used = 0
        if partial.count < 4 {
            used = min(4 - partial.count, bytes.count)
            partial.append(bytes.extracting(0..<used))
        }
        guard let size = try partialSize() else { return used }
        // Claimed sizes are reserved only as far as an honest client often goes; the rest grows with what arrives.
        if partial.capacity < size + 4, size <= 2 << 20 { partial.reserveCapacity(size + 4) }
        let more = min(size + 4 - partial.count, bytes.count - used)
        partial.append(bytes.extracting(used..<used + more))
        return used + more
    }

    private func partialSize() throws(BrokerError) -> Int? {
        let held = partial
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

    private func take(_ frame: Span<UInt8>) throws(BrokerError) {
        var reader = RequestReader(frame)
        let header = try RequestHeader(from: &reader)
        answers.append(nil)
        let slot = firstSlot + UInt64(answers.count - head - 1)
        let reply = Reply(connection: self, slot: slot, header: header, flexible: reader.flexible)
        try broker.handle(&reader, reply)
    }

    // MARK: Answers

    /// Gives the answer of one request; an empty one means that the client expects none.
    func respond(_ slot: UInt64, _ frame: [UInt8]) {
        guard let stream, !isDone, slot >= firstSlot else { return }
        answers[head + Int(slot - firstSlot)] = frame
        while head < answers.count, let frame = answers[head] {
            if !frame.isEmpty, stream.write(frame) != .queued {
                isDone = true
                stream.close()
                return
            }
            answers[head] = nil
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
        if isHeldBack, !mustHoldBack { resume() }
    }

    private var mustHoldBack: Bool {
        answers.count - head >= Self.answersMax || (stream?.queuedBytes ?? 0) >= Self.queuedBytesMax
            || broker.commits.isBacklogged
    }

    private func holdBackIfNeeded() {
        guard !isHeldBack, mustHoldBack else { return }
        isHeldBack = true
        stream?.pauseReading()
        if broker.commits.isBacklogged { broker.commits.whenDurable { [weak self] _ in self?.resumeIfPossible() } }
    }

    private func resumeIfPossible() {
        if isHeldBack, !mustHoldBack { resume() }
    }

    private func resume() {
        isHeldBack = false
        stream?.resumeReading()
    }

    func streamDrained(_ stream: Stream) { resumeIfPossible() }

    func streamEnded(_ stream: Stream) {
        isDone = true
        stream.close()
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        isDone = true
        self.stream = nil
        partial = []
        answers = []
        head = 0
        broker.closed(self)
    }
}
