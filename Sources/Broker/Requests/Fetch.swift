internal import Runtime
internal import System

/// Fetch (1), versions 4–17: read record batches, waiting for them if asked to.
///
/// Whole committed batches are sent as they are stored. A fetch that finds less than its minimum waits in the partitions
/// that it names; the commit that adds records to one of them wakes it. Gaps: fetch sessions are declined (every
/// answer names session 0, which makes clients send full requests); followers are not served; aborted transactions
/// are always none.
struct FetchRequest: Request {
    static let api = API(1, "Fetch", 4...17, flexibleFrom: 12)

    struct Partition {
        var index: Int32
        var leaderEpoch: Int32
        var offset: Int64
        /// In which the record before `offset` was read.
        var lastEpoch: Int32
        var maxBytes: Int32
    }

    struct Topic {
        var name: String
        var id: TopicID
        var partitions: [Partition]
    }

    let maxWaitMs: Int32
    let minBytes: Int32
    let maxBytes: Int32
    let sessionID: Int32
    let topics: [Topic]

    init(from reader: inout RequestReader, version: Int16) throws(BrokerError) {
        if version < 15 { _ = try reader.int32() }
        maxWaitMs = try reader.int32()
        minBytes = try reader.int32()
        maxBytes = try reader.int32()
        _ = try reader.int8()
        sessionID = version >= 7 ? try reader.int32() : 0
        if version >= 7 { _ = try reader.int32() }
        topics = try reader.array { reader throws(BrokerError) in
            let name = version < 13 ? try reader.string() : ""
            let id = version >= 13 ? try reader.topicID() : .zero
            let partitions = try reader.array { reader throws(BrokerError) in
                let index = try reader.int32()
                let epoch = version >= 9 ? try reader.int32() : -1
                let offset = try reader.int64()
                let lastEpoch = version >= 12 ? try reader.int32() : -1
                if version >= 5 { _ = try reader.int64() }
                let maxBytes = try reader.int32()
                try reader.skipTags()
                return Partition(
                    index: index, leaderEpoch: epoch, offset: offset, lastEpoch: lastEpoch, maxBytes: maxBytes)
            }
            try reader.skipTags()
            return Topic(name: name, id: id, partitions: partitions)
        }
        if version >= 7 {
            _ = try reader.array { reader throws(BrokerError) in
                if version < 13 { _ = try reader.string() } else { _ = try reader.topicID() }
                _ = try reader.int32Array()
                try reader.skipTags()
            }
        }
        if version >= 11 { _ = try reader.string() }
    }

    func answer(_ broker: BrokerCore, _ reply: Reply, frame: Span<UInt8>) throws(BrokerError) {
        let waiter = FetchWaiter(self, broker, reply)
        let namesNothing = topics.allSatisfy(\.partitions.isEmpty)
        if maxWaitMs > 0, !namesNothing, !waiter.tryToAnswer(mustAnswer: false) {
            waiter.wait(ms: Int(maxWaitMs))
        } else {
            _ = waiter.tryToAnswer(mustAnswer: true)
        }
    }

    fileprivate func log(_ topic: Topic, _ partition: Partition, _ broker: BrokerCore) -> (PartitionLog?, ErrorCode) {
        let known = topic.id == .zero ? broker.storage.topics[topic.name] : broker.storage.topicsByID[topic.id]
        guard let known else { return (nil, topic.id == .zero ? .unknownTopicOrPartition : .unknownTopicID) }
        guard let log = known.log(partition.index) else { return (nil, .unknownTopicOrPartition) }
        let error = log.check(leaderEpoch: partition.leaderEpoch)
        guard error == .none else { return (log, error) }
        if partition.divergence(from: log) != nil { return (log, .none) }
        guard partition.offset >= log.startOffset, partition.offset <= log.endOffset else {
            return (log, .offsetOutOfRange)
        }
        return (log, .none)
    }
}

extension FetchRequest.Partition {
    /// Where the log differs from what was read of it, for whoever says what that was (from version 12 on).
    fileprivate func divergence(from log: PartitionLog) -> (epoch: Int32, offset: Int64)? {
        guard lastEpoch >= 0, let end = log.end(ofEpoch: lastEpoch), end.epoch < lastEpoch || end.offset < offset else {
            return nil
        }
        return end
    }
}

/// A fetch that has not been answered yet.
final class FetchWaiter {
    private let request: FetchRequest
    private let broker: BrokerCore
    private let reply: Reply
    private var timer: Timer?
    private var waitsIn: [PartitionLog] = []
    private var isDone = false

    fileprivate init(_ request: FetchRequest, _ broker: BrokerCore, _ reply: Reply) {
        self.request = request
        self.broker = broker
        self.reply = reply
    }

    fileprivate func wait(ms: Int) {
        for topic in request.topics {
            for partition in topic.partitions {
                guard let log = request.log(topic, partition, broker).0 else { continue }
                log.waiters.append(self)
                waitsIn.append(log)
            }
        }
        reply.connection.add(self)
        // The timer keeps this object, also when it waits in no partition.
        timer = broker.loop.schedule(afterMs: ms) { _ = self.tryToAnswer(mustAnswer: true) }
    }

    /// The client is gone.
    func cancel() { finish() }

    /// The partition has grown, or is gone.
    func wake(mustAnswer: Bool = false) { _ = tryToAnswer(mustAnswer: mustAnswer) }

    /// Answers if there is enough, if a partition has an error to tell, or if it must.
    fileprivate func tryToAnswer(mustAnswer: Bool) -> Bool {
        guard !isDone else { return true }
        let version = reply.version
        // A client that asks on without reading is told of no more records until it does.
        let answerRoom = reply.connection.answerRoom
        let limit = min(Int(request.maxBytes), broker.configuration.fetchBytesMax, answerRoom)
        var writer = ResponseWriter(
            correlationID: reply.header.correlationID, flexible: reply.flexible, capacity: 512)
        writer.int32(0)
        if version >= 7 {
            writer.error(request.sessionID == 0 ? .none : .fetchSessionIDNotFound)
            writer.int32(0)
        }
        var total = 0
        // What there is counts, not what of it fits: batches are whole, and the answer is limited.
        var available = 0
        var hasError = request.sessionID != 0
        writer.arrayCount(hasError ? 0 : request.topics.count)
        if !hasError {
            for topic in request.topics {
                if version < 13 { writer.string(topic.name) } else { writer.topicID(topic.id) }
                writer.arrayCount(topic.partitions.count)
                for partition in topic.partitions {
                    let (log, error) = request.log(topic, partition, broker)
                    guard error == .none, let log, partition.divergence(from: log) == nil else {
                        hasError = true
                        write(partition, log, error, version, &writer)
                        continue
                    }
                    let start = writer.bytes.count
                    let room = max(min(Int(partition.maxBytes), limit - total), 0)
                    do throws(BrokerError) {
                        let read = try write(
                            partition, log, room, atLeastOne: total == 0 && answerRoom > 0, version, &writer)
                        total += read.bytes
                        available += read.isCutShort ? max(read.bytes, room) : read.bytes
                    } catch {
                        broker.reportStorage(error)
                        hasError = true
                        writer.rewind(to: start)
                        write(partition, log, error.protocolCode, version, &writer)
                    }
                }
                writer.noTags()
            }
        }
        writer.noTags()
        let isEnough = total > 0 && available >= min(Int(request.minBytes), limit)
        guard mustAnswer || hasError || isEnough || request.minBytes <= 0 else { return false }
        finish()
        broker.metrics.fetchedBytes.add(total)
        reply.send(writer)
        return true
    }

    /// Writes a partition with its records.
    private func write(
        _ partition: FetchRequest.Partition, _ log: PartitionLog, _ room: Int, atLeastOne: Bool, _ version: Int16,
        _ writer: inout ResponseWriter
    ) throws(BrokerError) -> PartitionLog.Reading {
        writeHead(partition, log, .none, version, &writer)
        let read = try writer.byteArray(sizeMax: room) { (bytes) throws(BrokerError) in
            try log.read(from: partition.offset, maxBytes: room, atLeastOne: atLeastOne, into: &bytes)
        }
        writer.noTags()
        return read
    }

    /// Writes a partition without records.
    private func write(
        _ partition: FetchRequest.Partition, _ log: PartitionLog?, _ error: ErrorCode, _ version: Int16,
        _ writer: inout ResponseWriter
    ) {
        writeHead(partition, log, error, version, &writer)
        writer.byteArray([])
        guard error == .none, let end = log.flatMap({ partition.divergence(from: $0) }) else {
            return writer.noTags()
        }
        // One tagged field, number 0: the newest epoch that both have, and where it ends.
        writer.unsignedVarint(1)
        writer.unsignedVarint(0)
        writer.unsignedVarint(13)
        writer.int32(end.epoch)
        writer.int64(end.offset)
        writer.noTags()
    }

    private func writeHead(
        _ partition: FetchRequest.Partition, _ log: PartitionLog?, _ error: ErrorCode, _ version: Int16,
        _ writer: inout ResponseWriter
    ) {
        writer.int32(partition.index)
        writer.error(error)
        writer.int64(log?.highWatermark ?? -1)
        writer.int64(log?.highWatermark ?? -1)
        if version >= 5 { writer.int64(log?.startOffset ?? -1) }
        writer.arrayCount(0)
        if version >= 11 { writer.int32(-1) }
    }

    private func finish() {
        isDone = true
        reply.connection.remove(self)
        timer?.cancel()
        timer = nil
        for log in waitsIn { log.waiters.removeAll { $0 === self } }
        waitsIn = []
    }
}

extension PartitionLog {
    /// Gives every fetch that waits here another try.
    func wakeWaiters(mustAnswer: Bool = false) {
        for waiter in waiters { waiter.wake(mustAnswer: mustAnswer) }
    }
}
