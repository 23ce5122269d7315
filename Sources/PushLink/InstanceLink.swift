import Wire

/// The chat server's end of one link, as a value. The same contract as `WorkerLink`: `receive`, then `next` until `nil`,
/// then write what `takeOutput` answers.
///
/// Batches and pages lie in the link's buffer; their bytes are read through `withPayload(of:)` until the next `receive`.
public struct InstanceLink {
    private enum State {
        case awaitingHello
        case awaitingProof
        case open
    }

    public enum Event: Hashable, Sendable {
        case opened(LinkIdentity)
        case message(WorkerMessage)
    }

    private let identity: LinkIdentity
    private let secret: LinkSecret
    private let nonce: [UInt8]
    private var end: LinkEnd
    private var state = State.awaitingHello
    private var handshake = Handshake()
    public private(set) var peer: LinkIdentity?

    private var takenBatchCount: UInt64 = 0
    private var acknowledgedBatchCount: UInt64 = 0

    /// `nonce`: 32 fresh random bytes.
    public init(identity: LinkIdentity, secret: LinkSecret, nonce: [UInt8], nowMs: Int64) {
        precondition(nonce.count == Handshake.nonceCount)
        self.identity = identity
        self.secret = secret
        self.nonce = nonce
        end = LinkEnd(nowMs: nowMs)
    }

    public var isOpen: Bool { if case .open = state { end.failure == nil } else { false } }
    public var failure: LinkError? { end.failure }
    public var outputByteCount: Int { end.output.count }

    /// Takes bytes from the socket; call `next` until it answers `nil` before the next bytes.
    public mutating func receive(_ bytes: Span<UInt8>, nowMs: Int64) { end.receive(bytes, nowMs: nowMs) }

    public mutating func takeOutput(nowMs: Int64) -> [UInt8] { end.takeOutput(nowMs: nowMs) }

    /// Sends a heartbeat when one is due; throws, and the link is over, when the worker has fallen silent (or has not
    /// proved itself in that time).
    public mutating func tick(nowMs: Int64) throws(LinkError) {
        if try end.tick(nowMs: nowMs), isOpen { InstanceMessage.heartbeat.encode(into: &end.output) }
    }

    /// The next thing the worker said. A link that has thrown once is over and throws the same from then on.
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
        case .awaitingHello:
            guard frame.type == .hello else { throw outOfPlace(frame) }
            let hello = try Handshake.Hello.decode(frame, in: end.input.bytes)
            // A newer worker is answered with the version spoken here; it is the one to refuse.
            guard hello.version >= LinkLimits.version else {
                throw LinkError(.unsupportedVersion, "the worker speaks version \(hello.version)")
            }
            peer = hello.identity
            let challenge = Handshake.Hello(identity: identity, nonce: nonce, version: LinkLimits.version)
                .encode(.challenge)
            handshake.transcript = [UInt8](copying: end.input.bytes.span.extracting(frame.whole)) + challenge
            end.output.append(contentsOf: challenge)
            state = .awaitingProof
            return nil
        case .awaitingProof:
            guard frame.type == .proof, let peer else { throw outOfPlace(frame) }
            guard handshake.verify(try Handshake.decodeProof(frame, in: end.input.bytes), of: .worker, secret) else {
                throw LinkError(.notAuthentic, "the worker does not know the secret")
            }
            end.output.append(contentsOf: Handshake.encode(proof: handshake.proof(of: .instance, secret), .welcome))
            handshake.transcript = []
            end.input.frameCountMax = LinkLimits.frameCountMax
            state = .open
            return .opened(peer)
        case .open:
            switch try WorkerMessage.decode(frame, in: end.input.bytes) {
            case .heartbeat: return nil
            case .batch(let batch):
                takenBatchCount += 1
                return .message(.batch(batch))
            case .goodbye(let error):
                throw LinkError(.closedByPeer, "the worker closed the link: \(error.message)")
            case let message: return .message(message)
            }
        }
    }

    private func outOfPlace(_ frame: Frame) -> LinkError {
        LinkError(.protocolViolation, "a \(frame.type) frame during the handshake")
    }

    // MARK: - Reading batches and pages

    /// The event's bytes: a complete device frame.
    public func withPayload<Result>(of batch: Batch, _ body: (Span<UInt8>) throws -> Result) rethrows -> Result {
        try body(end.input.bytes.span.extracting(batch.payload))
    }

    public func withPayload<Result>(of event: FillPage.Event, _ body: (Span<UInt8>) throws -> Result) rethrows -> Result
    {
        try body(end.input.bytes.span.extracting(event.payload))
    }

    /// The sessions that a batch is for.
    public func sessions(of batch: Batch) -> [SessionNumber] {
        let bytes = end.input.bytes.span.extracting(batch.sessions)
        var numbers: [SessionNumber] = []
        numbers.append(addingCapacity: batch.sessionCount) { output in
            for place in stride(from: 0, to: bytes.count, by: 4) {
                output.append(
                    UInt32(bytes[place]) | UInt32(bytes[place + 1]) << 8 | UInt32(bytes[place + 2]) << 16
                        | UInt32(bytes[place + 3]) << 24)
            }
        }
        return numbers
    }

    // MARK: - Sending

    public mutating func send(_ message: InstanceMessage) {
        guard isOpen else { return }
        message.encode(into: &end.output)
    }

    /// Acknowledges every batch taken so far. To be called once the batches of a turn are in their sessions' queues;
    /// one frame answers for all of them.
    public mutating func acknowledge() {
        guard isOpen, takenBatchCount > acknowledgedBatchCount else { return }
        acknowledgedBatchCount = takenBatchCount
        InstanceMessage.acknowledge(batches: takenBatchCount).encode(into: &end.output)
    }

    /// Says goodbye; what is in the output is still to be written.
    public mutating func close(_ error: LinkError) { _ = end.fail(error) }
}
