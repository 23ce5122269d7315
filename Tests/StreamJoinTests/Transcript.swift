import TestSupport
import Testing
import Wire

@testable import StreamJoin

/// A task, its table, and what it has written, one record a line.
final class Transcript {
    var table: MembershipTable
    var task: JoinTask
    var output = JoinOutput()
    var nowMs: UInt64 = 1000
    var lines: [String] = []
    var deliveries: [Delivered] = []
    /// What it has written to `chat.members`, and its tombstones there.
    var memberships: [(key: [UInt8], value: [UInt8])] = []
    var forgotten: [String] = []

    init(
        largeChat: Int = 256, sliceMax: Int = 512, partitions: Int32 = 1, partition: Int32 = 0,
        committed: Positions = Positions(),
        replayEnd: Int64 = 0, recordBytesMax: Int = 990_000
    ) {
        var limits = JoinSetup.Limits()
        limits.largeChat = largeChat
        limits.sliceMax = sliceMax
        limits.recordBytesMax = recordBytesMax
        table = MembershipTable(deliveryPartitions: 2, listedMax: max(1024, largeChat + 1))
        task = JoinTask(
            partition: partition,
            setup: JoinSetup(chatPartitions: partitions, deliveryPartitions: 2, limits: limits), committed: committed,
            replayEnd: replayEnd)
    }

    func take() {
        for record in output.records {
            guard let range = record.value else {
                forgotten.append(String(decoding: output.bytes[record.key], as: UTF8.self))
                continue
            }
            let value = Array(output.bytes[range])
            if record.target == .members {
                memberships.append((Array(output.bytes[record.key]), value))
                continue
            }
            lines.append(String(decoding: value, as: UTF8.self))
            let source = String(decoding: output.bytes[record.source], as: UTF8.self)
            if record.target == .deliveries,
                let delivery = try? Delivered(partition: record.partition, source: source, value: value.span)
            {
                deliveries.append(delivery)
            }
        }
        output.removeAll()
    }

    func forget() { (lines, deliveries) = ([], []) }

    func send(_ value: [UInt8]?, timestampMs: Int64 = 1) -> JoinStep {
        let step = task.message(
            value?.span, offset: task.next.incoming, timestampMs: timestampMs, nowNs: nowMs * 1_000_000, table: table,
            output: &output)
        take()
        return step
    }

    func change(_ row: (key: [UInt8], value: [UInt8])) {
        task.members(key: row.key.span, value: row.value.span, offset: task.next.members, table: &table)
    }

    /// What was done is committed; then what was told of changes.
    func commit() {
        for _ in 0..<2 { task.commitSucceeded(task.position, output: &output) }
        take()
    }

    /// Postgres answers what is asked now.
    func answer(_ chat: ChatID, metaVersion: Int64, _ users: [UserID]) {
        #expect(task.question(nowNs: nowMs * 1_000_000) == .members(chat))
        let membership = ChatMembership(
            chat: chat, metaVersion: metaVersion, members: users.map { .init($0, .member) })
        task.membersRead(membership, table: table, output: &output)
        take()
    }

    /// The members come in one transaction, and are committed.
    func create(_ chat: ChatID, _ users: [UserID], version: Int64 = 1, admins: Set<UserID> = []) {
        change(Rows.chat(chat, "c", version: 0, tx: version))
        for user in users {
            change(Rows.member(chat, user, "c", role: admins.contains(user) ? "admin" : "member", tx: version))
        }
        change(Rows.chat(chat, "u", version: version, tx: version))
        commit()
        forget()
    }

    func contains(_ text: String) -> Bool { lines.contains { $0.contains(text) } }
}
