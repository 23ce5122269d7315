internal import System

/// One connection to a broker: requests go out in order and are answered in order.
final class BrokerLink: StreamDelegate {
    /// What a request was about, for when its answer comes or does not.
    enum Subject {
        case versions
        case metadata
        case identity
        case produce([Item])
    }

    struct Item {
        var topic: Int
        var partition: Int32
        var batch: OutgoingBatch
    }

    private struct Pending {
        var correlationID: Int32
        var api: KafkaAPI
        var version: Int16
        var subject: Subject
        var sentNs: UInt64
    }

    let host: String
    let port: Int
    private unowned let owner: DirectProducer
    private let loop: EventLoop
    private let clientID: String
    private var stream: Stream?
    private var versions: SpokenVersions?
    private var pending: [Pending] = []
    private var lastCorrelationID: Int32 = 0
    private var inbox: [UInt8] = []
    /// When it may connect again.
    private(set) var retryAtNs: UInt64 = 0
    private var failures = 0

    /// No answer of a request made here is longer.
    static let answerBytesMax = 64 << 20
    /// More than the broker's own limit for a request of ours (`DirectProducer.requestTimeoutMs`).
    static let answerTimeoutNs: UInt64 = 40_000_000_000

    init(host: String, port: Int, owner: DirectProducer, loop: EventLoop, clientID: String) {
        self.host = host
        self.port = port
        self.owner = owner
        self.loop = loop
        self.clientID = clientID
    }

    /// Requests may be sent.
    var isReady: Bool { versions != nil }
    var isConnecting: Bool { stream != nil && versions == nil }
    var hasPending: Bool { !pending.isEmpty }
    var name: String { "\(host):\(port)" }

    /// Connects unless it is connected or has just failed to.
    func connect() {
        guard stream == nil, loop.monotonicNs >= retryAtNs else { return }
        stream = Stream.connect(
            host: host, port: port, on: loop, delegate: self,
            limits: StreamLimits(bytes: 256 << 20, fragments: 1 << 16))
    }

    func streamConnected(_ stream: Stream) {
        send(.apiVersions, version: 0, .versions) { _ in }
    }

    /// Sends a request; false when the broker does not speak it.
    @discardableResult
    func send(_ api: KafkaAPI, _ subject: Subject, capacity: Int = 256, _ fields: (inout RequestFrame, Int16) -> Void)
        -> Bool
    {
        guard let version = versions?.version(of: api) else { return false }
        send(api, version: version, subject, capacity: capacity) { fields(&$0, version) }
        return true
    }

    private func send(
        _ api: KafkaAPI, version: Int16, _ subject: Subject, capacity: Int = 256, _ fields: (inout RequestFrame) -> Void
    ) {
        lastCorrelationID &+= 1
        var frame = RequestFrame(
            api, version: version, correlationID: lastCorrelationID, clientID: clientID, capacity: capacity)
        fields(&frame)
        pending.append(
            Pending(
                correlationID: lastCorrelationID, api: api, version: version, subject: subject,
                sentNs: loop.monotonicNs))
        stream?.write(frame.finished())
    }

    // MARK: Answers

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        var used = 0
        if inbox.isEmpty {
            used = takeAnswers(bytes)
            if used < bytes.count, self.stream != nil { inbox.append(copying: bytes.extracting(used..<bytes.count)) }
        } else {
            inbox.append(copying: bytes)
            let whole = inbox
            used = takeAnswers(whole.span)
            if used > 0 { inbox.removeFirst(min(used, inbox.count)) }
        }
    }

    /// How many bytes made whole answers.
    private func takeAnswers(_ bytes: Span<UInt8>) -> Int {
        var position = 0
        while bytes.count - position >= 4, stream != nil {
            let size = Int(bytes.bigEndian(at: position) as Int32)
            guard size >= 4, size <= Self.answerBytesMax else {
                fail("an answer of \(size) bytes")
                break
            }
            guard bytes.count - position - 4 >= size else { break }
            let answer = bytes.extracting(position + 4..<position + 4 + size)
            position += 4 + size
            do {
                try take(answer)
            } catch {
                fail("an answer that is not what was asked for")
            }
        }
        return position
    }

    private func take(_ answer: Span<UInt8>) throws(AnswerReader.Malformed) {
        var reader = AnswerReader(answer)
        guard let request = pending.first, try reader.int32() == request.correlationID else {
            throw AnswerReader.Malformed()
        }
        // Until it is read, a request counts as unanswered: what is malformed is lost with the connection.
        switch request.subject {
        case .versions:
            let spoken = try SpokenVersions(&reader)
            pending.removeFirst()
            versions = spoken
            guard KafkaAPI.allCases.allSatisfy({ $0 == .apiVersions || spoken.version(of: $0) != nil }) else {
                return fail("this broker is older than Apache Kafka 2.1, or does not speak for producers")
            }
            failures = 0
            owner.linkIsReady(self)
        case .metadata:
            let metadata = try MetadataAnswer(&reader, version: request.version)
            pending.removeFirst()
            owner.learned(metadata)
        case .identity:
            let answer = try IdentityAnswer(&reader)
            pending.removeFirst()
            owner.learned(answer)
        case .produce(let items):
            let answers = try ProduceAnswer.read(&reader, version: request.version)
            pending.removeFirst()
            owner.answered(items, answers, by: self)
        }
    }

    // MARK: The end of a connection

    /// A broker that has not answered for so long never will on this connection.
    func checkTimeout() {
        guard let oldest = pending.first, loop.monotonicNs &- oldest.sentNs > Self.answerTimeoutNs else { return }
        fail("no answer for \(Self.answerTimeoutNs / 1_000_000_000) s")
    }

    func fail(_ reason: String) {
        guard stream != nil else { return }
        stream?.close()
        end(reason)
    }

    func streamEnded(_ stream: Stream) { stream.close() }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        guard self.stream === stream else { return }
        switch reason {
        case .failed(let error): end("\(error)")
        case .local, .peer: end("the broker closed the connection")
        }
    }

    /// Everything that was asked and not answered is lost with the connection.
    private func end(_ reason: String) {
        stream = nil
        inbox = []
        versions = nil
        let lost = pending
        pending = []
        failures += 1
        // From 20 ms to a second, never all clients at once.
        let waitMs = min(1000, 20 << min(failures - 1, 6))
        retryAtNs = loop.monotonicNs + UInt64(Int.random(in: waitMs / 2...waitMs)) * 1_000_000
        owner.linkLost(self, lost.map(\.subject), reason: reason)
    }

    /// Closes the connection on purpose: what was under way is told to the owner as lost.
    func reset() {
        guard stream != nil else { return }
        stream?.close()
        end("")
        failures = 0
        retryAtNs = 0
    }
}
