import Runtime
import TestSupport
import Testing
import Wire

@testable import StreamJoin

/// One partition's topics, a database with its CDC, and one or two joins on top, all on one thread and from one seed.
///
/// Chances: which side moves next, what is written and what of it is acknowledged, when a join crashes (what it had
/// handed to its producer is then partly written), when CDC starts again and repeats itself, when it has lost its slot and
/// reads everything again, what compaction has left of the log when a join starts.
struct JoinSimulation: ~Copyable {
    struct Plan {
        var crashes = false
        /// A join that another has replaced goes on with what it had read.
        var zombies = false
        /// Questions about members are answered from the database.
        var asksPostgres = false
        /// Senders claim versions that never come, and are refused in time.
        var refusesInTime = false
        /// CDC loses its slot now and then.
        var snapshots = false
        /// The log that a join restores from has been compacted.
        var compaction = false
        /// Crash once, at this step.
        var crashAt: Int?
        var steps = 1500
        /// Above so many members a record names no recipients.
        var largeChat = 5
        /// A statement that changes more members of a chat is told as one change.
        var bulkMin = 2
        /// So many changes are applied at once.
        var sliceMax = 2
    }

    /// A record that a join wrote, as it stands in the log.
    struct Written {
        var source: String
        var key: [UInt8] = []
        /// `nil`: a tombstone.
        var value: [UInt8]?
    }

    struct LogRecord {
        var key: [UInt8]?
        var value: [UInt8]?
    }

    static let deliveryPartitions: Int32 = 3

    var random: SeededGenerator
    let plan: Plan
    let setup: JoinSetup
    let chats: [ChatID]
    let users: [UserID]
    // The database, and what of it is on its way to the log: whole transactions.
    var database: [ChatID: (version: Int64, members: [UserID: MemberRow.Role])] = [:]
    /// Members of each chat at each version: what any message may be joined against.
    var history: [ChatID: [Int64: [UserID: MemberRow.Role]]] = [:]
    var transactions: [[LogRecord]] = []
    var shipped = 0
    /// Where the log ended when CDC was in the middle of nothing.
    private var wholeEnds = [0]
    private var longestShipped = 0
    /// What is before the slot does not come again.
    private var slotStart = 0
    private(set) var snapshotCount = 0
    var nextTransaction: Int64 = 100
    /// What must be told: for each chat and user the changes in their order.
    var changesMade: [[LogRecord]] = []
    // The log.
    var members: [LogRecord] = []
    var incoming: [(value: [UInt8], ts: Int64)] = []
    var signals: [[UInt8]] = []
    var outputs: [String: [Written]] = [:]
    var committed = Positions()
    var hasCommitted = false
    var worker: SimulatedWorker?
    var zombie: SimulatedWorker?
    var hasZombie = false
    var zombieEnd: Int64 = 0
    var crashCount = 0
    private(set) var membershipCount = 0
    var clockMs: Int64 = 1_000

    init(seed: UInt64, _ plan: Plan) {
        random = SeededGenerator(seed)
        self.plan = plan
        var limits = JoinSetup.Limits()
        limits.largeChat = plan.largeChat
        limits.recentMessages = 12
        limits.uncommittedMax = 20
        limits.bulkMin = plan.bulkMin
        limits.sliceMax = plan.sliceMax
        // Where it is not refusals in time that are tried, there are none.
        limits.holdMaxMs = plan.refusesInTime ? 30_000 : 1 << 40
        setup = JoinSetup(chatPartitions: 1, deliveryPartitions: Self.deliveryPartitions, limits: limits)
        var generator = random
        chats = (0..<3).map { _ in ChatID.random(using: &generator) }
        users = (0..<9).map { _ in UserID.random(using: &generator) }
        random = generator
        for chat in chats {
            database[chat] = (0, [:])
            history[chat] = [0: [:]]
        }
    }

    mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

    // MARK: The world

    /// A transaction of the application: each statement changes some rows of one chat or of several, one among the other, then
    /// the versions, as the trigger writes them.
    mutating func changeMembership() {
        nextTransaction += 1
        let tx = nextTransaction
        var records: [LogRecord] = []
        for _ in 0..<Int.random(in: 1...2, using: &random) {
            let touched = chats.shuffled(using: &random).prefix(chance(60) ? 1 : 2)
            for chat in touched {
                guard let row = database[chat], row.version == 0, row.members.isEmpty else { continue }
                guard !records.contains(where: { $0.key == Rows.chat(chat, "c", version: 0, tx: tx).key }) else {
                    continue
                }
                let created = Rows.chat(chat, "c", version: 0, tx: tx)
                records.append(LogRecord(key: created.key, value: created.value))
            }
            records += statement(touched.map { $0 }, tx)
        }
        transactions.append(records)
    }

    private mutating func statement(_ touched: [ChatID], _ tx: Int64) -> [LogRecord] {
        var rows: [[LogRecord]] = []
        // One statement, so one direction.
        let removes = chance(45)
        for chat in touched {
            guard var row = database[chat] else { continue }
            let mayRemove = removes && !row.members.isEmpty
            var seen: Set<UserID> = []
            for _ in 0..<Int.random(in: 1...(chance(25) ? 8 : 3), using: &random) {
                guard let user = users.randomElement(using: &random), seen.insert(user).inserted else { continue }
                if mayRemove {
                    guard row.members.removeValue(forKey: user) != nil else { continue }
                    let record = Rows.member(chat, user, "d", tx: tx)
                    rows.append([
                        LogRecord(key: record.key, value: record.value), LogRecord(key: record.key, value: nil),
                    ])
                } else {
                    let role: MemberRow.Role = chance(30) ? .admin : .member
                    let op = row.members[user] == nil ? "c" : "u"
                    row.members[user] = role
                    let record = Rows.member(chat, user, op, role: role.rawValue, tx: tx)
                    rows.append([LogRecord(key: record.key, value: record.value)])
                }
            }
            row.version += 1
            history[chat]?[row.version] = row.members
            database[chat] = row
        }
        if chance(50) { rows.shuffle(using: &random) }
        return rows.flatMap { $0 }
            + touched.map { chat in
                let version = Rows.chat(chat, "u", version: database[chat]?.version ?? 0, tx: tx)
                return LogRecord(key: version.key, value: version.value)
            }
    }

    /// CDC writes the next transaction; now and then it starts again a little before, and may have died in the middle of one.
    mutating func ship() {
        if chance(8) {
            if shipped < transactions.count, chance(50) {
                members += transactions[shipped].prefix(Int.random(in: 0...transactions[shipped].count, using: &random))
                longestShipped = max(longestShipped, shipped + 1)
            }
            shipped -= Int.random(in: 0...min(3, shipped - slotStart), using: &random)
        }
        guard shipped < transactions.count else { return }
        members += transactions[shipped]
        shipped += 1
        longestShipped = max(longestShipped, shipped)
        if shipped == longestShipped { wholeEnds.append(members.count) }
    }

    /// CDC has lost its slot: it deletes what is gone, then writes all rows as they are, members before chats.
    mutating func readAgain() {
        if members.isEmpty { return }
        var present: Set<[UInt8]> = []
        var memberRows: [LogRecord] = []
        var chatRows: [LogRecord] = []
        for chat in chats {
            guard let row = database[chat], row.version > 0 else { continue }
            for (user, role) in row.members.sorted(by: { $0.key < $1.key }) {
                let record = Rows.member(chat, user, "r", role: role.rawValue, tx: nil, again: true)
                present.insert(record.key)
                memberRows.append(LogRecord(key: record.key, value: record.value))
            }
            let record = Rows.chat(chat, "r", version: row.version, tx: nil, again: true)
            chatRows.append(LogRecord(key: record.key, value: record.value))
        }
        // Also what a transaction has deleted whose end was never written.
        var told: [[UInt8]] = []
        for record in members where record.value != nil {
            guard let key = record.key, String(decoding: key, as: UTF8.self).contains("user_id") else { continue }
            if !told.contains(key) { told.append(key) }
        }
        for key in told where !present.contains(key) {
            guard let row = try? MemberRow(decoding: key.span) else { continue }
            let record = Rows.member(row.chat, row.user, "d", tx: nil, again: true)
            members.append(LogRecord(key: record.key, value: record.value))
            members.append(LogRecord(key: record.key, value: nil))
        }
        members += memberRows + chatRows
        shipped = transactions.count
        longestShipped = shipped
        slotStart = shipped
        wholeEnds.append(members.count)
        snapshotCount += 1
    }

    /// The last record of each key that is old enough to have removed those before it: compaction waits for longer than a
    /// join is away, and than CDC takes to write again what it had written before.
    private var compacted: [[UInt8]: Int] {
        guard plan.compaction, let end = wholeEnds.last(where: { $0 <= committed.members }) else { return [:] }
        var last: [[UInt8]: Int] = [:]
        for offset in 0..<end { last[members[offset].key ?? []] = offset }
        return last
    }

    mutating func signal() {
        guard let chat = chats.randomElement(using: &random), let user = users.randomElement(using: &random) else {
            return
        }
        var json = JSONWriter()
        let kind: Signal.Kind = chance(50) ? .typing : .read
        Signal(chat: chat, from: user, device: .random(using: &random), kind: kind, seq: 1, ts: clockMs)
            .write(to: &json)
        signals.append(chance(3) ? [UInt8]("garbage".utf8) : json.bytes)
    }

    mutating func send() {
        guard let chat = chats.randomElement(using: &random), let row = database[chat] else { return }
        let from: UserID
        if let member = row.members.keys.sorted().randomElement(using: &random), chance(85) {
            from = member
        } else if let user = users.randomElement(using: &random) {
            from = user
        } else {
            return
        }
        // Causal: the sender has seen what the database has; or it has seen nothing, or claims nonsense.
        var version: Int64 = chance(70) ? row.version : 0
        if plan.asksPostgres || plan.refusesInTime, chance(2) { version += 100_000 }
        clockMs += Int64.random(in: -3...10, using: &random)
        let value: [UInt8]
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<3: value = [UInt8]("garbage \(incoming.count)".utf8)
        case 3..<12 where !incoming.isEmpty:
            value = incoming[Int.random(in: max(0, incoming.count - 20)..<incoming.count, using: &random)].value
        case 12..<28 where !incoming.isEmpty:
            let target = Int64.random(in: 0..<Int64(incoming.count), using: &random)
            value = IncomingMessage.change(
                chance(50) ? "edit" : "delete", target, from: from, in: chat,
                id: MessageID.random(using: &random), metaVersion: version)
        default:
            value = IncomingMessage.text(
                "m\(incoming.count)", from: from, in: chat, id: MessageID.random(using: &random),
                metaVersion: version)
        }
        incoming.append((value, clockMs))
    }

    // MARK: Joins

    mutating func startWorker() {
        if !hasCommitted {
            committed = Positions(incoming: 0, members: Int64(members.count), signals: 0)
            hasCommitted = true
        }
        var worker = SimulatedWorker(setup: setup, committed: committed, replayEnd: Int64(incoming.count))
        let last = compacted
        worker.table.beginLoading()
        for offset in 0..<Int(committed.memberships) {
            let record = members[offset]
            if offset == committed.members { worker.restored() }
            if let key = record.key, let end = last[key], offset < end { continue }
            worker.restore(key: record.key, value: record.value, offset: Int64(offset))
        }
        worker.caughtUp()
        for record in outputs["messages/0"] ?? [] {
            guard let value = record.value else { continue }
            if let message = try? AcceptedMessage(decoding: value.span) { worker.task.recall(message) }
        }
        self.worker = consume worker
    }

    mutating func crash() {
        guard var dying = worker.take() else { return }
        crashCount += 1
        if plan.zombies, !hasZombie, chance(60) {
            dying.isFenced = true
            hasZombie = true
            zombie = consume dying
            zombieEnd = Int64(incoming.count)
        } else {
            dying.writeSome(of: 100, into: &outputs, random: &random, isLast: true)
            readBack()
        }
        startWorker()
    }

    mutating func stepWorker(_ worker: inout SimulatedWorker, incomingEnd: Int64) {
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4: worker.takeMessage(from: incoming, end: incomingEnd, answering: plan.asksPostgres ? database : nil)
        case 4:
            // No slower than they come: it is a version that never comes that is refused in time.
            for _ in 0..<Int.random(in: 1...6, using: &random) { worker.takeChange(from: members) }
        case 5 where worker.task.canGoOn && chance(70): worker.goOn()
        case 5: if chance(70) { worker.takeChange(from: members) } else { worker.takeSignal(from: signals) }
        case 6: worker.closeEpoch()
        case 7:
            worker.writeSome(of: 40, into: &outputs, random: &random, isLast: false)
            readBack()
        case 8: worker.acknowledgeSome(random: &random)
        default:
            worker.complete()
            if !worker.isFenced, let positions = worker.committable {
                committed = positions
                worker.commitSucceeded()
            }
        }
        worker.nowNs += 30_000_000
    }

    /// What a join writes to `chat.members` stands among what CDC writes there.
    private mutating func readBack() {
        for record in outputs.removeValue(forKey: "members/0") ?? [] {
            members.append(LogRecord(key: record.key, value: record.value))
            membershipCount += 1
        }
    }

    mutating func run() {
        startWorker()
        for step in 0..<plan.steps {
            if step == plan.crashAt { crash() }
            self.step()
        }
        finish()
    }

    mutating func step() {
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<6: changeMembership()
        case 6..<14: ship()
        case 14..<22: send()
        case 22 where plan.snapshots && chance(20): readAgain()
        case 22..<24: if chance(50) { signal() } else { send() }
        case 24 where plan.crashes && chance(60): crash()
        case 25..<32:
            guard var zombie = zombie.take() else { return }
            stepWorker(&zombie, incomingEnd: zombieEnd)
            if !chance(5) { self.zombie = consume zombie } else { hasZombie = false }
        default:
            guard var worker = worker.take() else { return }
            stepWorker(&worker, incomingEnd: Int64(incoming.count))
            self.worker = consume worker
        }
    }

    /// Everything arrives; whoever is alive comes to the end.
    mutating func finish() {
        zombie = nil
        hasZombie = false
        while shipped < transactions.count { ship() }
        for _ in 0..<200_000 {
            guard var worker = worker.take() else { return }
            let isAtEnd =
                worker.task.next.incoming == incoming.count && worker.task.next.members == members.count
                && worker.task.next.signals == signals.count
                && worker.isQuiet && committed.incoming == incoming.count
            if !isAtEnd { stepWorker(&worker, incomingEnd: Int64(incoming.count)) }
            self.worker = consume worker
            if isAtEnd { return }
        }
        Issue.record("the join does not come to the end of the log")
    }
}

/// A join as its runner would drive it.
struct SimulatedWorker: ~Copyable {
    var table: MembershipTable
    var task: JoinTask
    var isFenced = false
    var nowNs: UInt64 = 1
    private var output = JoinOutput()
    private var progress = JoinProgress()
    private var queues: [String: [(tag: UInt64, record: JoinSimulation.Written)]] = [:]
    private var unacknowledged: [UInt64] = []
    private var isTouched = false
    private(set) var committable: Positions?

    init(setup: JoinSetup, committed: Positions, replayEnd: Int64) {
        table = MembershipTable(
            deliveryPartitions: setup.deliveryPartitions, listedMax: max(8, setup.limits.largeChat + 1))
        task = JoinTask(partition: 0, setup: setup, committed: committed, replayEnd: replayEnd)
    }

    var isQuiet: Bool {
        queues.isEmpty && unacknowledged.isEmpty && !isTouched && !task.isBusy
            && task.position.members == task.position.applied
    }

    // MARK: Start

    private var isRestored = false

    mutating func restore(key: [UInt8]?, value: [UInt8]?, offset: Int64) {
        if isRestored {
            task.catchUp(key: key?.span, value: value?.span, offset: offset, table: &table)
        } else {
            task.restore(key: key?.span, value: value?.span, offset: offset, into: &table)
        }
    }

    mutating func restored() {
        guard !isRestored else { return }
        isRestored = true
        task.restored(into: &table)
        table.endLoading()
    }

    mutating func caughtUp() {
        restored()
        task.caughtUp(table: &table, output: &output)
        tell()
    }

    private mutating func tell() {
        if !output.records.isEmpty { isTouched = true }
        collect()
    }

    // MARK: Work

    mutating func takeMessage(
        from log: [(value: [UInt8], ts: Int64)], end: Int64,
        answering database: [ChatID: (version: Int64, members: [UserID: MemberRow.Role])]?
    ) {
        guard task.next.incoming < end else { return }
        let offset = task.next.incoming
        let record = log[Int(offset)]
        let step = task.message(
            record.value.span, offset: offset, timestampMs: record.ts, nowNs: nowNs, table: table, output: &output)
        isTouched = true
        collect()
        guard step != .done, let question = task.question(nowNs: nowNs) else { return }
        switch question {
        case .original(let seq):
            let value = log[Int(seq)].value
            let original = try? IncomingMessage(decoding: value.span)
            let isText = original?.kind == .text
            task.originalRead(
                seq: seq, original.flatMap { isText ? .message(chat: $0.chat, from: $0.from) : nil } ?? .none)
        case .members(let chat):
            guard let row = database?[chat] else { return task.questionFailed(question, nowNs: nowNs) }
            let members = row.members.sorted { $0.key < $1.key }.map { ChatMembership.Member($0.key, $0.value) }
            task.membersRead(
                ChatMembership(chat: chat, metaVersion: row.version, members: members), table: table, output: &output)
            collect()
        }
    }

    mutating func takeSignal(from log: [[UInt8]]) {
        guard task.next.signals < log.count else { return }
        let offset = task.next.signals
        let value = log[Int(offset)]
        task.signal(value.span, offset: offset, table: table, output: &output)
        isTouched = true
        collect()
    }

    mutating func goOn() {
        task.goOn(table: &table)
        isTouched = true
    }

    mutating func takeChange(from log: [JoinSimulation.LogRecord]) {
        guard task.takesChanges, task.next.members < log.count else { return }
        let offset = task.next.members
        let record = log[Int(offset)]
        task.members(key: record.key?.span, value: record.value?.span, offset: offset, table: &table)
        isTouched = true
    }

    private mutating func collect() {
        for record in output.records {
            let queue = "\(record.target)/\(record.partition)"
            let written = JoinSimulation.Written(
                source: String(decoding: output.bytes[record.source], as: UTF8.self),
                key: Array(output.bytes[record.key]), value: record.value.map { Array(output.bytes[$0]) })
            queues[queue, default: []].append((progress.tag(), written))
        }
        output.removeAll()
    }

    mutating func closeEpoch() {
        guard isTouched else { return }
        progress.close([JoinProgress.Mark(partition: 0, life: 1, positions: task.position)])
        isTouched = false
    }

    /// The log takes some of what waits, each partition's records in their order.
    mutating func writeSome(
        of percent: Int, into outputs: inout [String: [JoinSimulation.Written]], random: inout SeededGenerator,
        isLast: Bool
    ) {
        for name in queues.keys.sorted() {
            guard var queue = queues[name] else { continue }
            let limit = isLast ? queue.count : max(1, queue.count * percent / 100)
            let count = Int.random(in: 0...limit, using: &random)
            for entry in queue.prefix(count) {
                outputs[name, default: []].append(entry.record)
                unacknowledged.append(entry.tag)
            }
            queue.removeFirst(count)
            queues[name] = queue.isEmpty ? nil : queue
        }
    }

    mutating func acknowledgeSome(random: inout SeededGenerator) {
        let count = Int.random(in: 0...unacknowledged.count, using: &random)
        for tag in unacknowledged.prefix(count) { progress.acknowledged(tag) }
        unacknowledged.removeFirst(count)
    }

    mutating func complete() {
        progress.complete { committable = $0.positions }
    }

    mutating func commitSucceeded() {
        if let committable { task.commitSucceeded(committable, output: &output) }
        committable = nil
        tell()
    }
}
