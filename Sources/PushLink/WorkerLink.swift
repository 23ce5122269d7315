import Wire

/// The Delivery worker's end of one link, as a value: what arrives goes in by `receive`, is taken out message by message
/// by `next`, and what is to be sent collects in an output that the runner takes and writes.
///
/// Every batch sent stays in the record of what is in flight until the instance has acknowledged it; the oldest of them
/// is how far the worker may commit.
public struct WorkerLink {
    private enum State {
        case awaitingChallenge
        case awaitingWelcome
        case open
    }

    public enum Event: Hashable, Sendable {
        /// Both have proved the secret. First of all events, once.
        case opened(LinkIdentity)
        case message(InstanceMessage)
    }

    private struct Sent {
        let partition: Int32
        let byteCount: Int32
        let offset: Int64
    }

    private let identity: LinkIdentity
    private let secret: LinkSecret
    private var end: LinkEnd
    private var state = State.awaitingChallenge
    private var handshake = Handshake()
    public private(set) var peer: LinkIdentity?

    /// Batches not yet acknowledged, oldest first, from `acknowledgedIndex` on.
    private var sent: [Sent] = []
    private var acknowledgedIndex = 0
    private var acknowledgedCount: UInt64 = 0
    /// Bytes of batches not yet acknowledged: the runner's measure of a link that is full.
    public private(set) var inFlightByteCount = 0

    /// `nonce`: 32 fresh random bytes.
    public init(identity: LinkIdentity, secret: LinkSecret, nonce: [UInt8], nowMs: Int64) {
        precondition(nonce.count == Handshake.nonceCount)
        self.identity = identity
        self.secret = secret
        end = LinkEnd(nowMs: nowMs)
        let hello = Handshake.Hello(identity: identity, nonce: nonce, version: LinkLimits.version).encode(.hello)
        handshake.transcript = hello
        end.output.append(contentsOf: hello)
    }

    public var isOpen: Bool { if case .open = state { end.failure == nil } else { false } }
    public var failure: LinkError? { end.failure }
    public var inFlightCount: Int { sent.count - acknowledgedIndex }
    public var outputByteCount: Int { end.output.count }

    /// Takes bytes from the socket; call `next` until it answers `nil` before the next bytes.
    public mutating func receive(_ bytes: Span<UInt8>, nowMs: Int64) { end.receive(bytes, nowMs: nowMs) }

    public mutating func takeOutput(nowMs: Int64) -> [UInt8] { end.takeOutput(nowMs: nowMs) }

    /// Sends a heartbeat when one is due; throws, and the link is over, when the instance has fallen silent.
    public mutating func tick(nowMs: Int64) throws(LinkError) {
        if try end.tick(nowMs: nowMs), isOpen { WorkerMessage.heartbeat.encode(into: &end.output) }
    }

    /// The next thing the instance said. A link that has thrown once is over and throws the same from then on.
    public mutating func next() throws(LinkError) -> Event? {
        if let failure = end.failure { throw failure }
        do {
            while let frame = try end.input.next() {
                if let event = try take(frame) { return event }
            }
            return nil
        } catch {
            throw end.fail(error)
        }
    }

    private mutating func take(_ frame: Frame) throws(LinkError) -> Event? {
        switch state {
        case .awaitingChallenge:
            try refuseGoodbye(frame)
            guard frame.type == .challenge else { throw outOfPlace(frame) }
            let challenge = try Handshake.Hello.decode(frame, in: end.input.bytes)
            guard challenge.version == LinkLimits.version else {
                throw LinkError(.unsupportedVersion, "the instance speaks version \(challenge.version)")
            }
            peer = challenge.identity
            handshake.transcript += [UInt8](copying: end.input.bytes.span.extracting(frame.whole))
            end.output.append(contentsOf: Handshake.encode(proof: handshake.proof(of: .worker, secret), .proof))
            state = .awaitingWelcome
            return nil
        case .awaitingWelcome:
            try refuseGoodbye(frame)
            guard frame.type == .welcome, let peer else { throw outOfPlace(frame) }
            guard handshake.verify(try Handshake.decodeProof(frame, in: end.input.bytes), of: .instance, secret) else {
                throw LinkError(.notAuthentic, "the instance does not know the secret")
            }
            handshake.transcript = []
            end.input.frameCountMax = LinkLimits.frameCountMax
            state = .open
            return .opened(peer)
        case .open:
            switch try InstanceMessage.decode(frame, in: end.input.bytes) {
            case .heartbeat: return nil
            case .acknowledge(let batches):
                try acknowledge(batches)
                return .message(.acknowledge(batches: batches))
            case .goodbye(let error):
                throw LinkError(.closedByPeer, "the instance closed the link: \(error.message)")
            case let message: return .message(message)
            }
        }
    }

    private func refuseGoodbye(_ frame: Frame) throws(LinkError) {
        guard frame.type == .goodbye else { return }
        var body = BodyReader(end.input.bytes.span.extracting(frame.body), base: frame.body.lowerBound)
        throw LinkError(.closedByPeer, "the instance closed the link: \(try body.goodbye().message)")
    }

    private func outOfPlace(_ frame: Frame) -> LinkError {
        LinkError(.protocolViolation, "a \(frame.type) frame during the handshake")
    }

    // MARK: - Sending

    /// Sends anything but batches and pages.
    public mutating func send(_ message: WorkerMessage) {
        guard isOpen else { return }
        message.encode(into: &end.output)
    }

    /// Sends one event to many of the instance's sessions.
    public mutating func sendBatch(
        partition: Int32, cursor: Cursor, kind: EventKind, sessions: Span<SessionNumber>, payload: Span<UInt8>
    ) {
        guard isOpen else { return }
        let before = end.output.count
        end.output.appendBatch(
            partition: partition, cursor: cursor, kind: kind, sessions: sessions, payload: payload)
        let byteCount = end.output.count - before
        inFlightByteCount += byteCount
        sent.append(Sent(partition: partition, byteCount: Int32(byteCount), offset: cursor.offset))
    }

    /// Sends one page of a fill; `body` appends its events and answers how far it got.
    public mutating func sendPage(
        request: UInt32, session: SessionNumber,
        _ body: (_ append: (_ offset: Int64, _ kind: EventKind, _ payload: Span<UInt8>) -> Void)
            -> (upTo: Cursor, isLast: Bool)
    ) {
        guard isOpen else { return }
        var output: [UInt8] = []
        swap(&output, &end.output)
        var page = PageWriter(&output, request: request, session: session)
        let (upTo, isLast) = body { offset, kind, payload in
            page.append(&output, offset: offset, kind: kind, payload: payload)
        }
        page.finish(&output, upTo: upTo, isLast: isLast)
        swap(&output, &end.output)
    }

    /// Says goodbye; what is in the output is still to be written.
    public mutating func close(_ error: LinkError) { _ = end.fail(error) }

    // MARK: - What is in flight

    private mutating func acknowledge(_ batches: UInt64) throws(LinkError) {
        guard batches >= acknowledgedCount, batches - acknowledgedCount <= UInt64(inFlightCount) else {
            throw LinkError(
                .protocolViolation,
                "\(batches) batches acknowledged of \(acknowledgedCount + UInt64(inFlightCount)) sent")
        }
        for _ in 0..<Int(batches - acknowledgedCount) {
            inFlightByteCount -= Int(sent[acknowledgedIndex].byteCount)
            acknowledgedIndex += 1
        }
        acknowledgedCount = batches
        if acknowledgedIndex == sent.count {
            sent.removeAll(keepingCapacity: true)
            acknowledgedIndex = 0
        } else if acknowledgedIndex > 1024, acknowledgedIndex > sent.count / 2 {
            sent.removeSubrange(0..<acknowledgedIndex)
            acknowledgedIndex = 0
        }
    }

    /// Calls `body` with every batch in flight, oldest first: per partition the first is where a commit must stop.
    public func forEachInFlight(_ body: (_ partition: Int32, _ offset: Int64) -> Void) {
        for index in acknowledgedIndex..<sent.count { body(sent[index].partition, sent[index].offset) }
    }
}
