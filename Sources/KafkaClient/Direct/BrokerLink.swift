internal import System

/// One connection to a broker: requests go out in order and are answered in order.
final class BrokerLink: StreamDelegate {
    /// What a request was about, for when its answer comes or does not.
    enum Question {
        case versions
        case metadata
        case identity
        case produce([Batch])
        case fetch(AskedPartitions)
        case offsets(AskedPartitions)
        case epochEnds(AskedPartitions)
    }

    /// What a client is told; a cluster keeps the rest to itself.
    enum Answer {
        case identity(IdentityAnswer)
        case produced([Batch], [ProduceAnswer])
        /// With the bytes that the records lie in.
        case fetched(AskedPartitions, FetchAnswer, AnswerBytes)
        case offsets(AskedPartitions, [OffsetAnswer])
        case epochEnds(AskedPartitions, [OffsetAnswer])
    }

    struct Batch {
        var topic: Int
        var partition: Int32
        var batch: OutgoingBatch
    }

    private struct Pending {
        var correlationID: Int32
        var api: KafkaAPI
        var version: Int16
        var question: Question
        var sentNs: UInt64
    }

    let host: String
    let port: Int
    private unowned let cluster: Cluster
    private var loop: EventLoop { cluster.loop }
    private var stream: Stream?
    private var versions: SpokenVersions?
    private var pending: [Pending] = []
    private var lastCorrelationID: Int32 = 0
    private var inbox = AnswerInbox(bytesMax: BrokerLink.answerBytesMax)
    /// When it may connect again.
    private(set) var retryAtNs: UInt64 = 0
    private var failures = 0

    /// No answer of a request made here is longer.
    static let answerBytesMax = 64 << 20
    /// More than the broker's own limit for a request of ours (`DirectProducer.requestTimeoutMs`).
    static let answerTimeoutNs: UInt64 = 40_000_000_000

    init(host: String, port: Int, _ cluster: Cluster) {
        self.host = host
        self.port = port
        self.cluster = cluster
    }

    /// Requests may be sent.
    var isReady: Bool { versions != nil }
    var isConnecting: Bool { stream != nil && versions == nil }
    var hasPending: Bool { !pending.isEmpty }
    /// What is asked now may be answered late: behind the answer to a question that waits for records.
    var isParked: Bool { pending.contains { if case .fetch = $0.question { true } else { false } } }
    func waits(for isMeant: (Question) -> Bool) -> Bool { pending.contains { isMeant($0.question) } }
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

    /// Sends a request, in no newer version than `newest`; false when the broker does not speak it.
    @discardableResult
    func send(
        _ api: KafkaAPI, _ question: Question, newest: Int16 = .max, capacity: Int = 256,
        _ fields: (inout RequestFrame, Int16) -> Void
    ) -> Bool {
        guard let version = versions?.version(of: api).map({ min($0, newest) }) else { return false }
        send(api, version: version, question, capacity: capacity) { fields(&$0, version) }
        return true
    }

    private func send(
        _ api: KafkaAPI, version: Int16, _ question: Question, capacity: Int = 256,
        _ fields: (inout RequestFrame) -> Void
    ) {
        lastCorrelationID &+= 1
        var frame = RequestFrame(
            api, version: version, correlationID: lastCorrelationID, clientID: cluster.clientID, capacity: capacity)
        fields(&frame)
        pending.append(
            Pending(
                correlationID: lastCorrelationID, api: api, version: version, question: question,
                sentNs: loop.monotonicNs))
        stream?.write(frame.finished())
    }

    // MARK: Answers

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        var position = 0
        do {
            while self.stream === stream, let answer = try inbox.next(bytes, &position) { try take(answer) }
        } catch {
            fail("an answer that is not what was asked for")
        }
    }

    private func take(_ answer: AnswerBytes) throws(AnswerReader.Malformed) {
        var reader = AnswerReader(answer.span)
        guard let request = pending.first, try reader.int32() == request.correlationID else {
            throw AnswerReader.Malformed()
        }
        try reader.begin(request.api, version: request.version)
        // Until it is read, a request counts as unanswered: what is malformed is lost with the connection.
        switch request.question {
        case .versions:
            let spoken = try SpokenVersions(&reader)
            pending.removeFirst()
            versions = spoken
            guard KafkaAPI.allCases.allSatisfy({ !$0.isNeeded || spoken.version(of: $0) != nil }) else {
                return fail("this broker is older than Apache Kafka 2.1")
            }
            failures = 0
            cluster.client?.wake()
        case .metadata:
            let metadata = try MetadataAnswer(&reader, version: request.version)
            pending.removeFirst()
            cluster.learned(metadata)
        case .identity:
            let answer = try IdentityAnswer(&reader)
            pending.removeFirst()
            cluster.client?.answered(.identity(answer), by: self)
        case .produce(let batches):
            let answers = try ProduceAnswer.read(&reader, version: request.version)
            pending.removeFirst()
            cluster.client?.answered(.produced(batches, answers), by: self)
        case .fetch(let asked):
            let fetched = try FetchAnswer(&reader, asked, version: request.version)
            pending.removeFirst()
            cluster.client?.answered(.fetched(asked, fetched, answer), by: self)
        case .offsets(let asked):
            let answers = try OffsetAnswer.read(&reader, asked, version: request.version)
            pending.removeFirst()
            cluster.client?.answered(.offsets(asked, answers), by: self)
        case .epochEnds(let asked):
            let answers = try OffsetAnswer.readEpochEnds(&reader, asked)
            pending.removeFirst()
            cluster.client?.answered(.epochEnds(asked, answers), by: self)
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
        inbox.removeAll()
        versions = nil
        let lost = pending
        pending = []
        failures += 1
        // From 20 ms to a second, never all clients at once.
        let waitMs = min(1000, 20 << min(failures - 1, 6))
        retryAtNs = loop.monotonicNs + UInt64(Int.random(in: waitMs / 2...waitMs)) * 1_000_000
        cluster.linkLost(self, lost.map(\.question), reason: reason)
    }

    /// Closes the connection on purpose: what was under way is told to the client as lost.
    func reset() {
        guard stream != nil else { return }
        stream?.close()
        end("")
        failures = 0
        retryAtNs = 0
    }
}
