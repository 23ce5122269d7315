// Fetches records by speaking Kafka's protocol itself, on its owner's thread.
//
// librdkafka fetches on a thread of its own, which hands each answer to the owner: under light loads, where every message is
// an answer, that thread and the two hand-overs were a seventh of what the stages cost. Here the owner's thread asks, and
// reads the answer when its own loop wakes it for that.
//
// One question for records is under way with each broker, about all partitions that it leads, and waits there for records
// to come. The next leaves as soon as the answer has come, before its records are taken, unless too much waits to be
// taken. What a partition may be asked and which answers count is `IncomingPartition`'s to say; records are read where
// they lie in the answer (`IncomingRecords`).
internal import CRdKafka
internal import System
internal import Wire

final class DirectFetcher: ClusterClient {
    private struct Place: Hashable {
        var topic: Int
        var partition: Int32
    }

    struct Entry {
        let topic: Int
        let partition: Int32
        var state: IncomingPartition
    }

    /// What waits to be taken, in order.
    final class Arrival {
        let place: Int
        let life: UInt32
        var records: IncomingRecords?
        /// What comes behind the records.
        let event: ConsumerEvent?
        /// Where it goes on when what lay there is left out.
        let skipsTo: Int64?

        init(place: Int, life: UInt32, records: IncomingRecords?, event: ConsumerEvent? = nil, skipsTo: Int64? = nil) {
            (self.place, self.life, self.records, self.event, self.skipsTo) = (place, life, records, event, skipsTo)
        }
    }

    let loop: EventLoop
    private let ticker: Ticker
    let cluster: Cluster
    private let options: ConsumerOptions
    private(set) var topics: [String] = []
    /// Which logs stand under these names, as far as it is known.
    var logs: [LogIdentity?] = []
    private var places: [Place: Int] = [:]
    var entries: [Entry] = []
    var arrivals: [Arrival] = []
    /// What the records that wait to be taken lie in.
    var queuedBytes = 0
    /// Where the next question begins, so that no partition is always the last to fit into an answer.
    private var rotation = 0
    /// Something may be asked that could not be before.
    private var mustAsk = false
    /// All that is missing is time, a connection, or an answer about the cluster.
    private var isBlocked = false
    private var willAskAtTickEnd = false
    private var isWoken = false
    private var isTurning = false
    private var isClosed = false
    /// What librdkafka has to say waits in its queue.
    private(set) var hasControl = false
    private var committedRetryNs: UInt64 = 0
    /// Asks the group where it stands.
    var committedOffsets: ([TopicPartition]) throws(KafkaError) -> [Int64?] = { _ throws(KafkaError) in [] }

    private static let committedRetryPauseNs: UInt64 = 500_000_000
    private static let upkeepMs = 500
    private static let metadataAgeNs: UInt64 = 300_000_000_000
    private static let metadataAgeByNamesNs: UInt64 = 400_000_000

    /// Whether it can do all that is asked for; else librdkafka must.
    static func serves(_ configuration: KafkaConfiguration, _ options: ConsumerOptions) -> Bool {
        !options.allowsTopicCreation && Cluster.serves(configuration)
    }

    init(_ configuration: KafkaConfiguration, _ options: ConsumerOptions, log: KafkaLogSink?) throws(KafkaError) {
        self.options = options
        do throws(SystemError) {
            loop = try EventLoop()
            ticker = try Ticker()
            cluster = Cluster(configuration, on: loop, log: log)
        } catch {
            throw KafkaError(.other, "\(error)", place: "consumer")
        }
        cluster.client = self
        do throws(SystemError) {
            _ = try loop.watch(ticker.descriptor) { [unowned self] _ in
                ticker.clear()
                wake()
            }
        } catch {
            throw KafkaError(.other, "\(error)", place: "consumer")
        }
    }

    deinit { if !isClosed { loop.close() } }

    /// Readable while there may be something to `poll`.
    var wakeDescriptor: Int32 { loop.descriptor }

    /// Turns when librdkafka has something to say.
    func watch(_ control: WakeDescriptor) throws(KafkaError) {
        do throws(SystemError) {
            _ = try loop.watch(control.descriptor) { [unowned self] _ in
                control.clear()
                hasControl = true
            }
        } catch {
            throw KafkaError(.other, "\(error)", place: "consumer")
        }
    }

    // MARK: Partitions

    func topic(_ name: String) -> Int {
        if let index = topics.firstIndex(of: name) { return index }
        topics.append(name)
        logs.append(cluster.identity(of: name))
        return topics.count - 1
    }

    var topicNames: [String] {
        Set(entries.lazy.filter(\.state.isAssigned).map(\.topic)).map { topics[$0] }
    }

    func name(_ entry: Entry) -> TopicPartition { TopicPartition(topics[entry.topic], entry.partition) }

    /// Where a partition stands in the list; nil when it is not assigned.
    func assigned(_ partition: TopicPartition) -> Int? {
        guard let topic = topics.firstIndex(of: partition.topic),
            let index = places[Place(topic: topic, partition: partition.partition)], entries[index].state.isAssigned
        else { return nil }
        return index
    }

    /// Where a partition stands in the list, from now on.
    func place(_ partition: TopicPartition) -> Int {
        let place = Place(topic: topic(partition.topic), partition: partition.partition)
        if let index = places[place] { return index }
        places[place] = entries.count
        let reset: IncomingPartition.Start? =
            switch options.startWithoutCommit {
            case .earliest: .earliest
            case .latest: .latest
            case .error: nil
            }
        let state = IncomingPartition(reset: reset, bytesMax: Int32(clamping: options.partitionFetchBytesMax))
        entries.append(Entry(topic: place.topic, partition: place.partition, state: state))
        return entries.count - 1
    }

    /// The caller wants something else.
    func changed() {
        loop.adopt()
        // A question that waits for records nobody wants any more would hold up the next.
        cluster.reset { question in
            guard case .fetch(let asked) = question else { return false }
            return asked.partitions.allSatisfy { entries[$0.place].state.life != $0.life }
        }
        arrivals.removeAll { isVoid($0) }
        queuedBytes = arrivals.reduce(0) { $0 + ($1.records?.byteCount ?? 0) }
        mustAsk = true
        wake()
    }

    private func isVoid(_ arrival: Arrival) -> Bool { entries[arrival.place].state.life != arrival.life }

    // MARK: Turns

    var hasArrivals: Bool { !arrivals.isEmpty }
    /// The first batch comes whole, however long it is; so there is room for that.
    var fetchBytesMax: Int { min(options.fetchBytesMax, BrokerLink.answerBytesMax / 2) }
    var reportsEnd: Bool { options.reportsEndOfPartition }

    func wake() {
        mustAsk = true
        if isTurning {
            askAtTickEnd()
        } else if !isWoken {
            isWoken = true
            loop.remote.wake()
        }
    }

    /// Asks what is to be asked and takes what has been answered, waiting at most `timeoutMs` for it.
    func turn(timeoutMs: Int) {
        loop.adopt()
        isWoken = false
        isTurning = true
        ask()
        loop.runOnce(timeoutMs: timeoutMs)
        isTurning = false
        let isIdle = entries.isEmpty && options.groupID == nil
        ticker.set(everyMs: isBlocked ? 10 : isIdle ? nil : Self.upkeepMs)
        guard ticker.hasPassed() else { return }
        cluster.checkTimeouts()
        // A member that does not poll leaves its group.
        hasControl = true
    }

    func tookControl() { hasControl = false }

    /// Hands over records until the batch has so many, or until something else has happened.
    func take(into batch: inout MessageBatch, max: Int) -> ConsumerEvent? {
        let wasFull = isFull
        defer { if wasFull, !isFull { wake() } }
        while let arrival = arrivals.first {
            if !isVoid(arrival) {
                if let event = take(arrival, into: &batch, max: max) { return event }
                if batch.count >= max, arrival.records != nil { return nil }
            }
            queuedBytes -= arrival.records?.byteCount ?? 0
            arrivals.removeFirst()
            if let event = arrival.event, !isVoid(arrival) {
                if let skipsTo = arrival.skipsTo { entries[arrival.place].state.took(skipsTo - 1) }
                return event
            }
        }
        return nil
    }

    /// Takes an arrival's records; they are gone when all are taken.
    private func take(_ arrival: Arrival, into batch: inout MessageBatch, max: Int) -> ConsumerEvent? {
        guard arrival.records != nil else { return nil }
        let entry = entries[arrival.place]
        let topic = ConsumerTopic(index: entry.topic)
        while batch.count < max, let step = arrival.records?.next() {
            switch step {
            case .record(let found):
                guard let records = arrival.records else { return nil }
                batch.append(found, in: records.content, from: records.contentStart, topic, entry.partition)
            case .broken(let offsets):
                return .passedOver(name(entry), offsets, reason: "a batch holds something else than it says")
            case .end:
                if let last = arrival.records?.lastOffset { entries[arrival.place].state.took(last) }
                queuedBytes -= arrival.records?.byteCount ?? 0
                arrival.records = nil
                return nil
            }
        }
        if let last = arrival.records?.lastOffset { entries[arrival.place].state.took(last) }
        return nil
    }

    // MARK: Asking

    private var isFull: Bool { queuedBytes >= options.queuedBytesMax }

    private func askAtTickEnd() {
        guard !willAskAtTickEnd else { return }
        willAskAtTickEnd = true
        loop.atTickEnd { [unowned self] in
            willAskAtTickEnd = false
            ask()
        }
    }

    private struct Questions {
        var link: BrokerLink
        var records: [AskedPartition] = []
        var offsets: [AskedPartition] = []
        var epochEnds: [AskedPartition] = []
    }

    /// Asks for whatever can be asked for now.
    private func ask() {
        guard mustAsk else { return }
        mustAsk = false
        isBlocked = false
        let nowNs = loop.monotonicNs
        var questions: [Questions] = []
        var uncommitted: [Int] = []
        for number in entries.indices {
            let index = number + rotation < entries.count ? number + rotation : number + rotation - entries.count
            let entry = entries[index]
            switch entry.state.wish(nowNs: nowNs) {
            case .nothing: break
            case .time: isBlocked = true
            case .leader: cluster.wantsMetadata = true
            case .committed: uncommitted.append(index)
            case .offset(let time):
                guard let at = questionsIndex(&questions, entry.state.leader) else { continue }
                questions[at].offsets.append(asked(index, entry, from: time))
            case .epochEnd(let epoch):
                guard let at = questionsIndex(&questions, entry.state.leader) else { continue }
                questions[at].epochEnds.append(asked(index, entry, from: Int64(epoch)))
            case .records(let from):
                if isFull { continue }
                guard let at = questionsIndex(&questions, entry.state.leader) else { continue }
                questions[at].records.append(asked(index, entry, from: from))
            }
        }
        for question in questions { send(question) }
        if !uncommitted.isEmpty { askCommitted(uncommitted) }
        if cluster.wantsMetadata { cluster.askMetadata() }
        if cluster.wantsMetadata || cluster.asksMetadata { isBlocked = true }
    }

    private func asked(_ index: Int, _ entry: Entry, from: Int64) -> AskedPartition {
        AskedPartition(
            place: index, topic: entry.topic, partition: entry.partition, life: entry.state.life, from: from,
            leaderEpoch: entry.state.leaderEpoch)
    }

    /// Where questions to this broker are gathered; nil while it cannot be asked.
    private func questionsIndex(_ questions: inout [Questions], _ leader: Int32?) -> Int? {
        guard let link = cluster.link(to: leader), link.isReady else {
            isBlocked = true
            return nil
        }
        if let index = questions.firstIndex(where: { $0.link === link }) { return index }
        questions.append(Questions(link: link))
        return questions.count - 1
    }

    private func send(_ question: Questions) {
        if !question.offsets.isEmpty {
            let asked = AskedPartitions(partitions: question.offsets, topics: topics)
            // librdkafka's mock broker answers those with epochs, of which it has none, in a form of its own.
            let hasEpochs = asked.partitions.contains { $0.leaderEpoch >= 0 }
            let isSent = question.link.send(
                .listOffsets, .offsets(asked), newest: hasEpochs ? .max : 3,
                capacity: 64 + 32 * asked.partitions.count
            ) { frame, version in
                frame.int32(-1)
                frame.int8(Self.readCommitted)
                asked.write(to: &frame) { frame, partition in
                    frame.int32(partition.partition)
                    if version >= 4 { frame.int32(partition.leaderEpoch) }
                    frame.int64(partition.from)
                }
            }
            if isSent { for partition in asked.partitions { entries[partition.place].state.asked() } }
        }
        if !question.epochEnds.isEmpty { askEpochEnds(question.epochEnds, question.link) }
        guard !question.records.isEmpty, !question.link.isParked else { return }
        rotation = rotation + 1 < entries.count ? rotation + 1 : 0
        let asked = AskedPartitions(partitions: question.records, topics: topics, logs: logs)
        let isSent = question.link.send(
            .fetch, .fetch(asked), newest: asked.allHaveIDs ? .max : 12, capacity: 96 + 52 * asked.partitions.count
        ) { frame, version in
            // By names alone, a topic that was made again looks like the one before.
            cluster.metadataAgeMaxNs = version >= 13 ? Self.metadataAgeNs : Self.metadataAgeByNamesNs
            frame.int32(-1)
            frame.int32(Int32(clamping: options.fetchWaitMs))
            frame.int32(Int32(clamping: options.fetchBytesMin))
            frame.int32(Int32(fetchBytesMax))
            frame.int8(Self.readCommitted)
            // No session: each question is whole.
            frame.int32(0)
            frame.int32(-1)
            asked.write(to: &frame, byID: version >= 13) { frame, partition in
                frame.int32(partition.partition)
                frame.int32(partition.leaderEpoch)
                frame.int64(partition.from)
                // What was read last is compared when the leader changes (`askEpochEnds`), of brokers of every version.
                if version >= 12 { frame.int32(-1) }
                frame.int64(-1)
                frame.int32(entries[partition.place].state.bytesMax)
            }
            frame.count(0)
            if version >= 11 { frame.string("") }
            frame.noTags()
        }
        if isSent { for partition in asked.partitions { entries[partition.place].state.asked() } }
    }

    /// Where what was read ends in the leader's log: below that it was cut off if it is less than was read.
    private func askEpochEnds(_ partitions: [AskedPartition], _ link: BrokerLink) {
        let asked = AskedPartitions(partitions: partitions, topics: topics)
        let isSent = link.send(.offsetForLeaderEpoch, .epochEnds(asked), capacity: 64 + 32 * partitions.count) {
            frame, version in
            if version >= 3 { frame.int32(-1) }
            asked.write(to: &frame) { frame, partition in
                frame.int32(partition.partition)
                frame.int32(partition.leaderEpoch)
                frame.int32(Int32(clamping: partition.from))
            }
        }
        for partition in partitions {
            if isSent { entries[partition.place].state.asked() } else { entries[partition.place].state.cannotCheck() }
        }
        if !isSent { wake() }
    }

    private static let readCommitted: Int8 = 1

    private func askCommitted(_ indices: [Int]) {
        isBlocked = true
        guard loop.monotonicNs >= committedRetryNs else { return }
        let lives = indices.map { entries[$0].state.life }
        do throws(KafkaError) {
            let offsets = try committedOffsets(indices.map { name(entries[$0]) })
            for (index, (life, offset)) in zip(indices, zip(lives, offsets)) {
                follow(entries[index].state.committed(offset, life: life), at: index)
            }
            wake()
        } catch {
            committedRetryNs = loop.monotonicNs + Self.committedRetryPauseNs
            if !error.isRetriable { arrive(.error(error, nil), at: indices[0]) }
        }
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        loop.adopt()
        arrivals = []
        loop.close()
    }
}
