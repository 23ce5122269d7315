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

    let clock: any Clock
    private let deliveryPartitions: Int32 = 16

    public init(clock: any Clock) {
        self.clock = clock
    }

    func measure<R>(_ body: () throws -> R) rethrows -> (R, seconds: Double, cpuSeconds: Double) {
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

    static func writeChat(_ chat: ChatID, _ transaction: Int, version: Int? = nil, to json: inout JSONWriter) {
        writeEnvelope("chats", transaction, isSnapshot: transaction % 2 == 0, to: &json) { json in
            json.field("chat_id", chat)
            json.field("kind", "group")
            json.field("title", "A chat")
            json.field("meta_version", version ?? 1 + transaction % 1000)
            json.field("open_history", false)
            json.field("created_at", "2026-01-01 00:00:00.123456+00")
        }
    }

    static func writeKey(_ chat: ChatID, _ user: UserID?, to json: inout JSONWriter) {
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
}
