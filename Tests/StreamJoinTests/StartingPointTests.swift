import KafkaClient
import TestSupport
import Testing
import Wire

@testable import StreamJoin

@Suite struct StartingPointTests {
    private let place = TopicPartition("chat.incoming", 0)

    private func decide(
        _ incoming: (offset: Int64, note: String)?, members: Int64? = nil, membersNote: String = "",
        signals: Int64? = nil, logs: StartingPoint.Logs = .init(), cutAt: Int64? = nil
    ) -> StartingPoint {
        StartingPoint.decide(
            .init(
                incoming: incoming.map { CommittedOffset(place, offset: $0.offset, metadata: $0.note) },
                members: members.map {
                    CommittedOffset(TopicPartition("chat.members", 0), offset: $0, metadata: membersNote)
                }, signals: signals),
            incoming: Watermarks(low: 100, high: 200), members: Watermarks(low: 0, high: 50),
            signals: Watermarks(low: 5, high: 60), logs: logs, cutAt: cutAt)
    }

    private let logs = (0..<6).compactMap { LogIdentity(topicID: UUID(high: 7, low: $0)) }

    private func note(_ incoming: LogIdentity, _ members: LogIdentity, _ signals: LogIdentity) -> String {
        var positions = Positions(incoming: 150, members: 12, signals: 34, memberships: 15, decision: .unavailable)
        positions.runs = LogRuns(
            incoming: LogRun(log: incoming, generation: 2), members: LogRun(log: members), signals: LogRun(log: signals)
        )
        return CommitNote.text(positions)
    }

    @Test func `in the log that was known work goes on, and of one that was not known it is noted`() {
        let present = StartingPoint.Logs(incoming: logs[0], members: logs[1], signals: logs[2])
        let point = decide((150, note(logs[0], logs[1], logs[2])), members: 12, signals: 34, logs: present)
        #expect(point.positions.incoming == 150 && point.lost.isEmpty && !point.mustCommit)
        let learned = decide((150, "members=12 signals=34"), members: 12, signals: 34, logs: present)
        #expect(learned.positions.incoming == 150 && learned.lost.isEmpty)
        #expect(learned.positions.runs.incoming == LogRun(log: logs[0]))
    }

    @Test func `a topic that was made again is begun anew, whatever offset was reached in the old one`() {
        let known = note(logs[0], logs[1], logs[2])
        let incoming = decide(
            (150, known), members: 12, signals: 34, logs: .init(incoming: logs[3], members: logs[1], signals: logs[2]))
        #expect(incoming.positions.incoming == 100 && incoming.isFirst && incoming.mustCommit)
        #expect(incoming.positions.decision == nil && incoming.positions.members == 12)
        #expect(incoming.positions.runs.incoming == LogRun(log: logs[3], generation: 3))
        #expect(incoming.lost == [.init(topic: .incoming, was: logs[0], now: logs[3], position: 150)])
        let members = decide(
            (150, known), members: 12, signals: 34, logs: .init(incoming: logs[0], members: logs[4], signals: logs[2]))
        #expect(members.positions.members == 50 && members.positions.isOne && members.positions.incoming == 150)
        #expect(members.lost.map(\.topic) == [.members] && members.mustCommit && !members.isFirst)
        let signals = decide(
            (150, known), members: 12, signals: 34, logs: .init(incoming: logs[0], members: logs[1], signals: logs[5]))
        #expect(signals.positions.signals == 5 && signals.lost.map(\.topic) == [.signals])
    }

    @Test func `a deleted topic takes its positions along; the note beside those of chat.members tells what was known`()
    {
        let present = StartingPoint.Logs(incoming: logs[3], members: logs[1], signals: logs[2])
        let point = decide(
            nil, members: 12, membersNote: note(logs[0], logs[1], logs[2]), signals: 34, logs: present)
        #expect(point.positions.incoming == 100 && point.isFirst && point.positions.members == 12)
        #expect(point.positions.runs.incoming == LogRun(log: logs[3], generation: 3))
        #expect(point.lost.map(\.topic) == [.incoming])
    }

    @Test func `where a log ends before what was read of it, offsets begin again, and so does their generation`() {
        let present = StartingPoint.Logs(incoming: logs[0], members: logs[1], signals: logs[2])
        let known = note(logs[0], logs[1], logs[2])
        let point = decide((201, known), members: 12, signals: 34, logs: present)
        #expect(point.positions.incoming == 200 && point.positions.runs.incoming == LogRun(log: logs[0], generation: 3))
        #expect(point.mustCommit && point.notes.count == 1)
        // It has grown past the position meanwhile, but a reader was told where it was cut off.
        let grown = decide((180, known), members: 12, signals: 34, logs: present, cutAt: 170)
        #expect(grown.positions.incoming == 170 && grown.positions.runs.incoming.generation == 3 && grown.mustCommit)
        let before = decide((150, known), members: 12, signals: 34, logs: present, cutAt: 170)
        #expect(before.positions.incoming == 150 && before.positions.runs.incoming.generation == 2)
        // Where it is not known that it is the same log, it may be another.
        let unknown = decide((201, "members=12 signals=34"), members: 12, signals: 34, logs: present)
        #expect(unknown.positions.incoming == 100)
        // What retention has let go of is another matter.
        let behind = decide((99, note(logs[0], logs[1], logs[2])), members: 12, signals: 34, logs: present)
        #expect(behind.positions.incoming == 100 && behind.positions.runs.incoming.generation == 2)
    }

    @Test func `the first start takes all messages, with the membership as it is now`() {
        let point = decide(nil, members: 7)
        #expect(point.positions == Positions(incoming: 100, members: 50, signals: 60))
        #expect(point.mustCommit && point.isFirst && point.notes.isEmpty)
    }

    @Test func `the note of a commit goes before the other topics' positions, and a change of these is told`() {
        let note = "members=12 signals=34"
        let point = decide((150, note), members: 12, signals: 34)
        #expect(point == StartingPoint(positions: Positions(incoming: 150, members: 12, signals: 34)))
        let changed = decide((150, note), members: 0, signals: 34)
        #expect(changed.positions == point.positions)
        #expect(changed.notes.count == 1 && changed.notes[0].contains("chat.members"), "\(changed.notes)")
    }

    @Test func `a commit's note tells what goes with its positions, and nothing of what does not matter`() {
        let plain = Positions(incoming: 150, members: 12, signals: 34)
        #expect(CommitNote.text(plain) == "members=12 signals=34")
        for decision in [nil, JoinDecision.unavailable, .withoutVersion] {
            for (applied, memberships) in [(12, 12), (12, 15), (13, 13), (13, 15)] as [(Int64, Int64)] {
                var positions = plain
                (positions.applied, positions.memberships) = (applied, memberships)
                positions.decision = decision
                #expect(CommitNote.positions(incoming: 150, note: CommitNote.text(positions)) == positions)
            }
        }
        for bad in ["members=12", "members=12 signals=34 decision=maybe", "members=-1 signals=2", "members signals"] {
            #expect(CommitNote.positions(incoming: 150, note: bad) == nil)
        }
    }

    @Test func `a decision goes with its position, and falls with it`() {
        let note = "members=12 signals=34 memberships=99 decision=unavailable"
        let point = decide((150, note), members: 12, signals: 34)
        #expect(point.positions.decision == .unavailable)
        #expect(point.positions.memberships == 50, "what is beyond the log's end is not waited for")
        #expect(decide((99, note)).positions.decision == nil)
    }

    @Test func `a position that was set by hand is taken, and told`() {
        let point = decide((120, ""), members: 12, signals: 34)
        #expect(point.positions == Positions(incoming: 120, members: 12, signals: 34))
        #expect(point.mustCommit && !point.isFirst)
        #expect(point.notes.count == 1 && point.notes[0].contains("set to 120"), "\(point.notes)")
        #expect(decide((120, "by an operator")).positions == Positions(incoming: 120, members: 50, signals: 60))
    }

    @Test func `positions that are not in the log are told and not believed`() {
        for offset: Int64 in [99, 201] {
            let point = decide((offset, "members=12 signals=34"))
            #expect(point.positions.incoming == 100 && point.mustCommit && point.notes.count == 1)
        }
        let point = decide((150, "members=51 signals=61"))
        var expected = Positions(incoming: 150, members: 50, signals: 60)
        expected.runs.members.generation = 1
        expected.runs.signals.generation = 1
        #expect(point.positions == expected)
        #expect(point.mustCommit && point.notes.count == 1)
    }
}

@Suite struct FollowedPartitionTests {
    private let chat = ChatID.random()

    @Test func `a followed partition stands where the group's commit is, and goes on with it`() {
        var table = MembershipTable(deliveryPartitions: 2, listedMax: 8)
        let users = (0..<3).map { _ in UserID.random() }
        var log: [(key: [UInt8], value: [UInt8])] = []
        for (index, user) in users.enumerated() {
            log.append(Rows.member(chat, user, "c", tx: Int64(index)))
            log.append(Rows.chat(chat, "u", version: Int64(index + 1), tx: Int64(index)))
        }
        let follower = FollowedPartition(0, from: 0, committed: 2)
        for (offset, row) in log.enumerated() {
            follower.take(key: row.key.span, value: row.value.span, offset: Int64(offset), &table)
        }
        #expect(table.memberCount == 1 && follower.position == 2 && !follower.waiting.isEmpty)
        follower.committed(1, &table)
        #expect(table.memberCount == 1, "a commit that comes late changes nothing")
        follower.committed(4, &table)
        #expect(table.memberCount == 2 && follower.position == 4)
        // What comes after the backlog waits behind it.
        let gone = Rows.member(chat, users[0], "d", tx: 9)
        follower.take(key: gone.key.span, value: gone.value.span, offset: 6, &table)
        follower.committed(6, &table)
        #expect(table.memberCount == 3 && follower.position == 6)
        follower.committed(7, &table)
        #expect(follower.waiting.isEmpty && follower.position <= 7)
    }
}
