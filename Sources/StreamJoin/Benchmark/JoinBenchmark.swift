public import KafkaClient
public import Runtime
import System
import Wire

/// Measures the join: `fanout bench join`.
public struct JoinBenchmark {
    /// A row of the result: what was done, how much of it, in what time.
    public struct Row: Sendable {
        public var name: String
        public var count: Int
        public var seconds: Double
        /// CPU time of the whole process, librdkafka's threads included.
        public var cpuSeconds: Double
        public var note = ""

        public var perSecond: Double { Double(count) / seconds }
        public var perCPUSecond: Double { cpuSeconds > 0 ? Double(count) / cpuSeconds : 0 }
    }

    private let clock: any Clock
    private let deliveryPartitions: Int32 = 16

    public init(clock: any Clock) {
        self.clock = clock
    }

    private func measure<R>(_ body: () throws -> R) rethrows -> (R, seconds: Double, cpuSeconds: Double) {
        let (start, cpu) = (clock.monotonicNs, CurrentProcess.cpuNs)
        let result = try body()
        let (end, cpuEnd) = (clock.monotonicNs, CurrentProcess.cpuNs)
        return (result, Double(end - start) / 1e9, Double(cpuEnd - cpu) / 1e9)
    }

    // MARK: The task, from memory

    /// One task over records in memory: chats of so many members, texts of 200 bytes.
    public func task(members: Int, seconds: Double) -> [Row] {
        var limits = JoinSetup.Limits()
        limits.uncommittedMax = 1 << 30
        let setup = JoinSetup(chatPartitions: 1, deliveryPartitions: deliveryPartitions, limits: limits)
        var table = MembershipTable(deliveryPartitions: deliveryPartitions, listedMax: 1024)
        let chats = (0..<max(16, 100_000 / members)).map { _ in ChatID.random() }
        var senders: [UserID] = []
        for chat in chats {
            let users = (0..<members).map { _ in UserID.random() }
            for user in users { table.put(user, in: chat, role: .member) }
            table.setChat(chat, metaVersion: 1)
            senders.append(users[0])
        }
        let text = String(repeating: "x", count: 200)
        let records = (0..<50_000).map { index in
            var record = JSONWriter()
            var content = JSONWriter()
            content.value(text)
            var message = IncomingMessage(
                id: .random(), chat: chats[index % chats.count], from: senders[index % chats.count],
                device: .random(), kind: .text, metaVersion: 1)
            var reader = JSONReader(content.bytes.span)
            message.text = try? reader.readString()
            message.write(to: &record, source: content.bytes.span)
            return record.bytes
        }
        var task = JoinTask(partition: 0, setup: setup, committed: Positions(), replayEnd: 0)
        var output = JoinOutput()
        var offset: Int64 = 0
        var bytes = 0
        var written = 0
        let end = clock.monotonicNs + UInt64(seconds * 1e9)
        let (_, took, cpu) = measure {
            // The ids come round again only behind the window.
            var rounds: UInt64 = 0
            while clock.monotonicNs < end {
                if rounds > 0 { task.forget() }
                rounds += 1
                for record in records {
                    _ = task.message(
                        record.span, offset: offset, timestampMs: offset, nowNs: 0, table: table, output: &output)
                    offset += 1
                    bytes += output.bytes.count
                    written += output.records.count
                    output.removeAll()
                }
            }
        }
        let note = "\(written) records, \(bytes >> 20) MiB out"
        return [
            Row(
                name: "messages in, chats of \(members), from memory", count: Int(offset), seconds: took,
                cpuSeconds: cpu, note: note),
            Row(
                name: "recipients out, chats of \(members), from memory", count: task.counts.recipients,
                seconds: took, cpuSeconds: cpu),
        ]
    }

    // MARK: The table

    public struct TableResult: Sendable {
        public var rows: [Row]
        public var memberships: Int
        public var bytes: Int
        public var bytesPerMembership: Double { Double(bytes) / Double(memberships) }
    }

    /// The table at full size, built as a restore from the log builds it (change envelopes in random order), saved and
    /// loaded again.
    public func table(memberships: Int, chats: Int, users: Int, directory: String) throws -> TableResult {
        var random = SystemRandomNumberGenerator()
        let chatIDs = (0..<chats).map { _ in ChatID.random(using: &random) }
        let userIDs = (0..<users).map { _ in UserID.random(using: &random) }
        let setup = JoinSetup(chatPartitions: 1, deliveryPartitions: deliveryPartitions)
        var table = MembershipTable(deliveryPartitions: deliveryPartitions, listedMax: 1024)
        // A predecessor has committed all of it: nobody is told, and the table is all that is made.
        var task = JoinTask(partition: 0, setup: setup, committed: Positions(members: .max), replayEnd: 0)
        table.beginLoading()
        var rows: [Row] = []
        var json = JSONWriter()
        var applied = 0
        var seconds = 0.0
        var cpuSeconds = 0.0
        while applied < memberships + chats {
            // Made a block at a time, so that the records need no memory of their own to speak of.
            let count = min(100_000, memberships + chats - applied)
            var records: [(key: [UInt8], value: [UInt8])] = []
            records.reserveCapacity(count)
            for index in applied..<applied + count {
                json.removeAll()
                if index < memberships {
                    Self.writeMember(
                        chatIDs[Int.random(in: 0..<chats, using: &random)],
                        userIDs[Int.random(in: 0..<users, using: &random)], index, to: &json)
                } else {
                    Self.writeChat(chatIDs[index - memberships], index, to: &json)
                }
                records.append(([], json.bytes))
            }
            let (_, took, cpu) = measure {
                for (index, record) in records.enumerated() {
                    task.restore(
                        key: record.key.span, value: record.value.span, offset: Int64(applied + index), into: &table)
                }
            }
            seconds += took
            cpuSeconds += cpu
            applied += count
        }
        let (_, compacting, compactingCPU) = measure {
            task.restored(into: &table)
            table.endLoading()
        }
        rows.append(
            Row(
                name: "changes restored, from memory", count: applied, seconds: seconds + compacting,
                cpuSeconds: cpuSeconds + compactingCPU))
        let path = directory + "/bench-\(UInt32.random(in: 0 ... .max)).checkpoint"
        defer { try? File.remove(path) }
        let saved = try measure {
            try table.snapshot(positions: [0: Int64(applied)], savedAtMs: clock.wallMs).save(to: path)
        }
        let size = try File(path).size
        rows.append(
            Row(
                name: "memberships saved to a checkpoint", count: table.memberCount, seconds: saved.seconds,
                cpuSeconds: saved.cpuSeconds, note: "\(size >> 20) MiB"))
        let members = table.memberCount
        let bytes = table.bytes
        table = MembershipTable(deliveryPartitions: deliveryPartitions, listedMax: 1024)
        let loaded = try measure {
            let table = MembershipTable(
                try MembershipSnapshot(loading: path, deliveryPartitions: deliveryPartitions, listedMax: 1024))
            return table.memberCount
        }
        precondition(loaded.0 == members, "a checkpoint has what was saved")
        rows.append(
            Row(
                name: "memberships loaded from a checkpoint", count: members, seconds: loaded.seconds,
                cpuSeconds: loaded.cpuSeconds))
        return TableResult(rows: rows, memberships: members, bytes: bytes)
    }

    // As CDC writes them: half of the members have come by a snapshot, half since.

    static func writeMember(_ chat: ChatID, _ user: UserID, _ transaction: Int, to json: inout JSONWriter) {
        writeEnvelope("members", transaction, isSnapshot: transaction % 2 == 0, to: &json) { json in
            json.field("chat_id", chat)
            json.field("user_id", user)
            json.field("role", transaction % 10 == 0 ? "admin" : "member")
            // Postgres leaves the last zeros out.
            var microseconds = 100_000 + transaction % 900_000
            while microseconds % 10 == 0 { microseconds /= 10 }
            json.field("joined_at", "2026-01-01 00:00:00.\(microseconds)+00")
            json.nullField("muted_until")
        }
    }

    static func writeChat(_ chat: ChatID, _ transaction: Int, to json: inout JSONWriter) {
        writeEnvelope("chats", transaction, isSnapshot: transaction % 2 == 0, to: &json) { json in
            json.field("chat_id", chat)
            json.field("kind", "group")
            json.field("title", "A chat")
            json.field("meta_version", 1 + transaction % 1000)
            json.field("open_history", false)
            json.field("created_at", "2026-01-01 00:00:00.123456+00")
        }
    }

    private static func writeKey(_ chat: ChatID, _ user: UserID?, to json: inout JSONWriter) {
        json.removeAll()
        json.object { json in
            json.field("chat_id", chat)
            if let user { json.field("user_id", user) }
        }
    }

    private static func writeEnvelope(
        _ table: String, _ transaction: Int, isSnapshot: Bool, to json: inout JSONWriter,
        _ row: (inout JSONWriter) -> Void
    ) {
        json.object { json in
            json.field("op", isSnapshot ? "r" : "c")
            json.nullField("before")
            json.name("after")
            json.object(row)
            json.name("source")
            json.object { json in
                json.field("db", "fanout")
                json.field("schema", "public")
                json.field("table", table)
                json.field("lsn", 20_000_000_000 + 100 * transaction)
                if isSnapshot { json.nullField("txId") } else { json.field("txId", transaction) }
                json.field("ts_ms", 1_700_000_000_000 + transaction)
                json.field("snapshot", isSnapshot)
            }
            json.field("ts_ms", 1_700_000_000_000 + transaction)
        }
    }

    // MARK: Through the log

    /// The table at full size as a join restores it from the log of a broker, with topics of its own: from the group's
    /// assignment until the join is ready.
    public func restore(
        _ kafka: KafkaConfiguration, memberships: Int, log: Log
    ) throws -> [Row] {
        let names = Names(prefix: "bench-\(UInt32.random(in: 0 ... .max)).")
        let admin = try Admin(kafka)
        defer { _ = admin.close(deadlineMs: 2000) }
        let plan = TopicPlan.standard
        _ = try plan.create(admin, names: names)
        defer { _ = try? admin.deleteTopics(Topic.allCases.map { names[$0] }) }
        let chatPartitions = Int32(plan.count(of: .chat))
        var random = SystemRandomNumberGenerator()
        let chats = (0..<max(1, memberships / 10)).map { _ in ChatID.random(using: &random) }
        let users = (0..<max(1, memberships / 10)).map { _ in UserID.random(using: &random) }
        var producing = ProducerOptions()
        producing.lingerMs = 5
        let producer = try Producer(kafka, producing)
        let topic = try producer.topic(names[.members])
        var failed = 0
        var json = JSONWriter()
        var key = JSONWriter()
        func produce(_ chat: ChatID, _ user: UserID?, _ write: (inout JSONWriter) -> Void) throws {
            json.removeAll()
            write(&json)
            Self.writeKey(chat, user, to: &key)
            while try producer.produce(
                topic, partition: chat.partition(count: chatPartitions), key: key.bytes.span, value: json.bytes.span,
                tag: 1) == .queueFull
            {
                producer.poll(timeoutMs: 100) { failed += $0.succeeded ? 0 : 1 }
            }
        }
        for index in 0..<memberships {
            let chat = chats[Int.random(in: 0..<chats.count, using: &random)]
            let user = users[Int.random(in: 0..<users.count, using: &random)]
            try produce(chat, user) { Self.writeMember(chat, user, index, to: &$0) }
        }
        for (index, chat) in chats.enumerated() { try produce(chat, nil) { Self.writeChat(chat, index, to: &$0) } }
        _ = producer.flush(deadlineMs: 120_000) { failed += $0.succeeded ? 0 : 1 }
        producer.close(deadlineMs: 2000) { _ in }
        guard failed == 0 else { throw JoinError(.output, "\(failed) records of the load were not written") }

        let runner = JoinRunner(
            JoinConfiguration(kafka: kafka, names: names), log: log, metrics: Metrics(), clock: clock)
        let failure = Handover<String?>()
        let thread = Thread.start(name: "join") {
            do {
                try runner.run()
                failure.put(nil)
            } catch {
                failure.put("\(error)")
            }
        }
        let metrics = runner.metrics
        let wait = Waiter()
        while metrics.restoring.value == 0, !runner.isReady { wait.aMoment() }
        let (_, seconds, cpuSeconds) = measure { while !runner.isReady { wait.aMoment() } }
        let count = Int(metrics.restoredChanges.value)
        let resident = CurrentProcess.residentBytes
        runner.stop()
        thread.join()
        if let failure = failure.take() { throw JoinError(.output, failure) }
        return [
            Row(
                name: "changes restored, through the log", count: count, seconds: seconds, cpuSeconds: cpuSeconds,
                note: "\(memberships) memberships, \(resident >> 20) MiB resident")
        ]
    }

    /// The whole stage against a broker, with topics of its own: messages that wait in the log are joined as fast as it
    /// goes. The table is restored from the log first.
    public func throughLog(
        _ kafka: KafkaConfiguration, members: Int, messages: Int, log: Log
    ) throws -> [Row] {
        let names = Names(prefix: "bench-\(UInt32.random(in: 0 ... .max)).")
        let admin = try Admin(kafka)
        defer { _ = admin.close(deadlineMs: 2000) }
        let plan = TopicPlan.standard
        _ = try plan.create(admin, names: names)
        defer { _ = try? admin.deleteTopics(Topic.allCases.map { names[$0] }) }
        let chatPartitions = Int32(plan.count(of: .chat))
        let chats = (0..<max(64, 100_000 / members)).map { _ in ChatID.random() }
        var senders: [UserID] = []
        var json = JSONWriter()
        var producing = ProducerOptions()
        producing.lingerMs = 5
        let producer = try Producer(kafka, producing)
        var failed = 0
        var key = JSONWriter()
        func produce(_ topic: ProducerTopic, _ chat: ChatID, _ user: UserID? = nil) throws {
            Self.writeKey(chat, user, to: &key)
            while try producer.produce(
                topic, partition: chat.partition(count: chatPartitions), key: key.bytes.span, value: json.bytes.span,
                tag: 1) == .queueFull
            {
                producer.poll(timeoutMs: 100) { failed += $0.succeeded ? 0 : 1 }
            }
        }
        let membersTopic = try producer.topic(names[.members])
        for chat in chats {
            for index in 0..<members {
                let user = UserID.random()
                if index == 0 { senders.append(user) }
                json.removeAll()
                Self.writeMember(chat, user, 1, to: &json)
                try produce(membersTopic, chat, user)
            }
            json.removeAll()
            Self.writeChat(chat, 1, to: &json)
            try produce(membersTopic, chat)
        }
        let incomingTopic = try producer.topic(names[.incoming])
        let text = [UInt8](("\"" + String(repeating: "x", count: 200) + "\"").utf8)
        for index in 0..<messages {
            json.removeAll()
            var message = IncomingMessage(
                id: .random(), chat: chats[index % chats.count], from: senders[index % chats.count],
                device: .random(), kind: .text, metaVersion: 1)
            var reader = JSONReader(text.span)
            message.text = try? reader.readString()
            message.write(to: &json, source: text.span)
            try produce(incomingTopic, message.chat)
        }
        _ = producer.flush(deadlineMs: 60_000) { failed += $0.succeeded ? 0 : 1 }
        producer.close(deadlineMs: 2000) { _ in }
        guard failed == 0 else { throw JoinError(.output, "\(failed) records of the load were not written") }

        let configuration = JoinConfiguration(kafka: kafka, names: names)
        let runner = JoinRunner(configuration, log: log, metrics: Metrics(), clock: clock)
        let failure = Handover<String?>()
        let thread = Thread.start(name: "join") {
            do {
                try runner.run()
                failure.put(nil)
            } catch {
                failure.put("\(error)")
            }
        }
        // From the first joined message to the last: the group's beginnings are not what is measured.
        let metrics = runner.metrics
        let wait = Waiter()
        while metrics.accepted.value == 0 { wait.aMoment() }
        let first = Int(metrics.accepted.value)
        let firstRecipients = Int(metrics.recipients.value)
        let (_, seconds, cpuSeconds) = measure {
            while Int(metrics.accepted.value) < messages { wait.aMoment() }
        }
        runner.stop()
        thread.join()
        if let failure = failure.take() { throw JoinError(.output, failure) }
        return [
            Row(
                name: "messages in, chats of \(members), through the log", count: messages - first, seconds: seconds,
                cpuSeconds: cpuSeconds),
            Row(
                name: "recipients out, chats of \(members), through the log",
                count: Int(metrics.recipients.value) - firstRecipients, seconds: seconds, cpuSeconds: cpuSeconds),
        ]
    }
}

/// Lets this thread rest for a tick of a loop of its own.
private struct Waiter {
    private let loop = try? EventLoop()

    func aMoment() { loop?.runOnce(timeoutMs: 5) }
}
