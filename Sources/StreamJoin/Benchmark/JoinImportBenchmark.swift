public import KafkaClient
public import Runtime
import System
import Wire

/// A bulk import while people talk in other chats: `fanout bench import`.
extension JoinBenchmark {
    /// What one import cost those who have nothing to do with it.
    public struct ImportResult: Sendable {
        public var memberships: Int
        /// From the first row in the log until the join has told the last.
        public var seconds: Double
        /// From a message's place in `chat.incoming` to that of its first delivery, by the log's own clock.
        public var quietMs: (p50: Double, p99: Double, max: Double)
        public var busyMs: (p50: Double, p99: Double, max: Double)
        public var messages: Int
        /// The records of `chat.deliveries` that came of the import.
        public var records: Int
        /// Resident memory of this process, in which join, writer and reader are.
        public var residentBefore: Int
        public var residentMax: Int
        public var residentAfter: Int
        /// What the import has added to the table.
        public var tableBytes: Int
    }

    /// One transaction of one statement puts so many memberships into new chats: all rows, then all versions, as the
    /// trigger writes them. Meanwhile messages flow in other chats, `rate` a second.
    public func importing(
        _ kafka: KafkaConfiguration, memberships: Int, members: Int, rate: Int, log: Log
    ) throws -> ImportResult {
        let load = try LoggedLoad(kafka, lingerMs: 1)
        defer { load.delete() }
        let talking = (0..<64).map { _ in (chat: ChatID.random(), users: (0..<10).map { _ in UserID.random() }) }
        for (chat, users) in talking {
            for user in users { try load.write(.members, chat, user) { Self.writeMember(chat, user, 0, to: &$0) } }
            try load.write(.members, chat) { Self.writeChat(chat, 0, to: &$0) }
        }
        try load.flush()
        var result: ImportResult?
        _ = try joining(load, log) { runner, wait in
            while !runner.isReady || runner.metrics.memberships.value < talking.count * 10 { wait.aMoment() }
            let heard = HeardDeliveries(load)
            defer { heard.stop() }
            let before = Int(CurrentProcess.residentBytes)
            var residentMax = before
            let tableBefore = Int(runner.metrics.tableBytes.value)
            let startNs = clock.monotonicNs
            var sent = 0
            func talk() throws {
                let due = Int(Double(clock.monotonicNs - startNs) / 1e9 * Double(rate))
                while sent < due {
                    let (chat, users) = talking[sent % talking.count]
                    try load.writeText(to: chat, from: users[0])
                    sent += 1
                }
                load.poll()
                residentMax = max(residentMax, Int(CurrentProcess.residentBytes))
                wait.aTick()
            }
            while clock.monotonicNs - startNs < 3_000_000_000 { try talk() }
            let quiet = heard.delays.snapshot()
            let importNs = clock.monotonicNs
            let told = Int(runner.metrics.memberEvents.value) + memberships
            let importer = Importer(load, memberships: memberships, members: members)
            defer { importer.join() }
            while Int(runner.metrics.memberEvents.value) < told || clock.monotonicNs < heard.importedNs + 500_000_000 {
                try talk()
            }
            let seconds = Double(heard.importedNs - importNs) / 1e9
            let endNs = clock.monotonicNs
            while clock.monotonicNs - endNs < 2_000_000_000 { try talk() }
            while heard.messages < sent { wait.aMoment() }
            let busy = heard.delays.snapshot().since(quiet)
            result = ImportResult(
                memberships: memberships, seconds: seconds, quietMs: Self.quantiles(quiet),
                busyMs: Self.quantiles(busy), messages: Int(busy.total), records: heard.importedRecords,
                residentBefore: before, residentMax: residentMax, residentAfter: Int(CurrentProcess.residentBytes),
                tableBytes: Int(runner.metrics.tableBytes.value) - tableBefore)
            return []
        }
        guard let result else { preconditionFailure("a measured import has a result") }
        return result
    }

    /// An odd number: rows of the stream, not of a snapshot.
    static let importTransaction = 1_000_001

    private static func quantiles(_ delays: Histogram.Snapshot) -> (p50: Double, p99: Double, max: Double) {
        (delays.quantileUs(0.5) / 1000, delays.quantileUs(0.99) / 1000, delays.quantileUs(1) / 1000)
    }
}

/// Writes the rows of a transaction as fast as the log takes them, on a thread of its own, as CDC would.
private final class Importer: Sendable {
    private let thread: Thread

    init(_ load: LoggedLoad, memberships: Int, members: Int) {
        let (kafka, name, partitions) = (load.kafka, load.names[.members], load.chatPartitions)
        thread = Thread.start(name: "import") {
            do {
                try Importer.write(kafka, name, partitions, memberships, members)
            } catch {
                preconditionFailure("the import was not written: \(error)")
            }
        }
    }

    func join() { thread.join() }

    private static func write(
        _ kafka: KafkaConfiguration, _ name: String, _ partitions: Int32, _ memberships: Int, _ members: Int
    ) throws {
        let chats = (0..<max(1, memberships / members)).map { _ in ChatID.random() }
        // Each is in ten of the chats.
        let users = (0..<max(members, memberships / 10)).map { _ in UserID.random() }
        var options = ProducerOptions()
        options.lingerMs = 2
        options.queueBytesMax = 4 << 20
        let producer = try Producer(kafka, options)
        defer { producer.close(deadlineMs: 5000) { _ in } }
        let topic = try producer.topic(name)
        var (key, value) = (JSONWriter(), JSONWriter())
        func write(_ chat: ChatID, _ user: UserID?) throws {
            key.removeAll()
            JoinBenchmark.writeKey(chat, user, to: &key)
            while try producer.produce(
                topic, partition: chat.partition(count: partitions), key: key.bytes.span, value: value.bytes.span,
                tag: 1) == .queueFull
            { producer.poll(timeoutMs: 100) { _ in } }
            value.removeAll()
        }
        func writeChats(version: Int) throws {
            for chat in chats {
                JoinBenchmark.writeChat(chat, JoinBenchmark.importTransaction, version: version, to: &value)
                try write(chat, nil)
            }
        }
        try writeChats(version: 0)
        for index in 0..<memberships {
            let (chat, user) = (chats[index * chats.count / memberships], users[index % users.count])
            JoinBenchmark.writeMember(chat, user, JoinBenchmark.importTransaction, to: &value)
            try write(chat, user)
        }
        try writeChats(version: 1)
        _ = producer.flush(deadlineMs: 60_000) { _ in }
    }
}

/// Reads `chat.deliveries` on a thread of its own: how long messages took, and what came of memberships.
private final class HeardDeliveries: Sendable {
    let delays = Histogram()
    private let counts = Guarded((messages: 0, imported: 0, importedNs: UInt64(0), isStopping: false))
    private let thread = Guarded<Thread?>(nil)

    init(_ load: LoggedLoad) {
        let (kafka, names, partitions) = (load.kafka, load.names, load.deliveryPartitions)
        let started = Handover<Bool>()
        let reader = Thread.start(name: "hear") { [self] in
            do {
                try read(kafka, names, partitions, started)
            } catch {
                preconditionFailure("the deliveries cannot be read: \(error)")
            }
        }
        thread.withLock { $0 = reader }
        _ = started.take()
    }

    /// The messages that have reached somebody.
    var messages: Int { counts.withLock { $0.messages } }
    var importedRecords: Int { counts.withLock { $0.imported } }
    /// When the last record of the import came.
    var importedNs: UInt64 { counts.withLock { $0.importedNs } }

    func stop() {
        counts.withLock { $0.isStopping = true }
        thread.withLock { $0 }?.join()
    }

    private func read(
        _ kafka: KafkaConfiguration, _ names: Names, _ partitions: Int32, _ started: Handover<Bool>
    ) throws {
        let clock = SystemClock()
        var options = ConsumerOptions()
        options.queuedBytesMax = 4 << 20
        let consumer = try Consumer(kafka, options)
        defer { consumer.close(deadlineMs: 2000) }
        var starts: [PartitionStart] = []
        for partition in 0..<partitions {
            let place = TopicPartition(names[.deliveries], partition)
            starts.append(PartitionStart(place, at: .offset(try consumer.watermarks(place).high)))
        }
        try consumer.assign(starts)
        started.put(true)
        let (incoming, members) = ([UInt8](names[.incoming].utf8), [UInt8](names[.members].utf8))
        // Each message leads to a record in several partitions: the first counts.
        var heard: Set<[UInt8]> = []
        while !counts.withLock({ $0.isStopping }) {
            let batch = consumer.poll(maxMessages: 2000, timeoutMs: 20)
            var imported = 0
            for index in 0..<batch.count {
                let message = batch[index]
                guard let source = message.header("src"), let value = message.value else { continue }
                if source.starts(with: members) {
                    imported += 1
                } else if source.starts(with: incoming), heard.insert([UInt8](copying: source)).inserted {
                    let delayMs = max(0, message.timestampMs - (try Self.time(of: value)))
                    delays.record(ns: UInt64(delayMs) * 1_000_000)
                }
            }
            counts.withLock { counts in
                counts.messages = heard.count
                counts.imported += imported
                if imported > 0 { counts.importedNs = clock.monotonicNs }
            }
        }
    }

    private static func time(of record: Span<UInt8>) throws -> Int64 {
        let delivery = try DeliveryRecord(decoding: record)
        let event = record.extracting(delivery.event)
        var reader = JSONReader(event)
        try reader.beginObject()
        while let name = try reader.nextField() {
            if name.equals("ts", in: event) { return try reader.readInt() }
            try reader.skipValue()
        }
        return 0
    }
}

extension Span<UInt8> {
    fileprivate func starts(with prefix: [UInt8]) -> Bool {
        count > prefix.count && extracting(0..<prefix.count).elementsEqual(prefix.span)
    }
}
