import TestSupport
import Testing
import Wire

@testable import StreamJoin

/// Changes of membership: what they do to the table, and who is told of them.
@Suite struct JoinChangesTests {
    let chat = ChatID.random()
    let users = (0..<6).map { _ in UserID.random() }

    @Test func `a chat that grows over the limit lists its members once more, and then none`() throws {
        let join = Transcript(largeChat: 5)
        join.create(chat, Array(users.prefix(5)))
        _ = join.send(IncomingMessage.text("small", from: users[0], in: chat))
        #expect(join.deliveries.flatMap(\.to).count == 5)
        join.forget()
        join.change(Rows.member(chat, users[5], "c", tx: 2))
        join.change(Rows.chat(chat, "u", version: 2, tx: 2))
        join.commit()
        #expect(Set(join.deliveries.flatMap(\.to)) == Set(users))
        #expect(join.deliveries.allSatisfy { $0.record.contains(#""enter":"\#(chat)""#) })
        join.forget()
        _ = join.send(IncomingMessage.text("large", from: users[0], in: chat))
        #expect(join.deliveries.map(\.partition) == [0, 1])
        #expect(join.deliveries.allSatisfy { $0.largeChat == chat && $0.to.isEmpty })
        join.forget()
        // Beyond the limit only the one concerned is told.
        let seventh = UserID.random()
        join.change(Rows.member(chat, seventh, "c", tx: 3))
        join.change(Rows.chat(chat, "u", version: 3, tx: 3))
        join.commit()
        #expect(join.deliveries.map(\.to) == [[seventh]] && join.contains(#""enter":"#))
        join.forget()
        join.change(Rows.member(chat, seventh, "d", tx: 4))
        join.change(Rows.chat(chat, "u", version: 4, tx: 4))
        join.commit()
        #expect(join.deliveries.map(\.to) == [[seventh]] && join.contains(#""leave":"#))
        join.forget()
        join.change(Rows.member(chat, users[5], "d", tx: 5))
        join.change(Rows.chat(chat, "u", version: 5, tx: 5))
        join.commit()
        #expect(Set(join.deliveries.flatMap(\.to)) == Set(users))
        #expect(join.deliveries.allSatisfy { $0.record.contains(#""leave":"\#(chat)""#) })
    }

    @Test func `a successor tells what was committed and not told, and then joins against it`() {
        let join = Transcript(largeChat: 5)
        join.create(chat, users)
        let before = join.task.committed
        // The chat ceases to be large; the join dies when that is committed, before anybody is told.
        let rows = [Rows.member(chat, users[5], "d", tx: 2), Rows.chat(chat, "u", version: 2, tx: 2)]
        for row in rows { join.change(row) }
        let committed = join.task.position
        #expect(committed.members == before.members && committed.applied == before.members + 2)
        let next = Transcript(largeChat: 5, committed: committed, replayEnd: 1)
        for user in users { next.table.put(user, in: chat, role: .member) }
        next.table.setChat(chat, metaVersion: 1)
        next.task.restored(into: &next.table)
        for (index, row) in rows.enumerated() {
            next.task.catchUp(
                key: row.key.span, value: row.value.span, offset: committed.members + Int64(index), table: &next.table)
        }
        next.task.caughtUp(table: &next.table, output: &next.output)
        next.take()
        #expect(Set(next.deliveries.flatMap(\.to)) == Set(users))
        #expect(next.deliveries.allSatisfy { $0.record.contains(#""leave":"\#(chat)""#) }, "\(next.lines)")
        next.forget()
        #expect(next.send(IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 2)) == .done)
        #expect(Set(next.deliveries.flatMap(\.to)) == Set(users.dropLast()))
        #expect(next.task.position.members == committed.applied)
    }

    @Test func `what is to be told of changes is bounded, and told as they are committed`() {
        let join = Transcript()
        join.create(chat, users)
        let start = join.task.position.members
        var count = 0
        while join.task.takesChanges {
            count += 1
            join.change(Rows.member(chat, users[0], "u", role: count % 2 == 0 ? "member" : "admin", tx: nil))
            #expect(count < 100_000)
        }
        #expect(join.task.position.members == start)
        // A commit of a part of them tells that part.
        var part = join.task.position
        part.applied = start + 1
        join.task.commitSucceeded(part, output: &join.output)
        join.take()
        #expect(join.deliveries.allSatisfy { $0.source == "chat.members/0/\(start)" })
        #expect(Set(join.deliveries.flatMap(\.to)) == Set(users))
        #expect(join.task.position.members == start + 1 && join.task.position.applied == start + Int64(count))
        join.commit()
        #expect(Set(join.deliveries.map(\.source)).count == count && join.task.takesChanges)
        #expect(join.task.position.members == join.task.position.applied)
    }

    @Test func `during a second snapshot the new version comes after the removals that made it`() {
        let join = Transcript()
        join.create(chat, users, version: 4)
        let late = UserID.random()
        let message = IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 6)
        let waiting = JoinStep.waiting(.membership(chat, metaVersion: 6))
        for row in [
            Rows.member(chat, users[5], "d", tx: nil, again: true),
            Rows.member(chat, users[0], "r", tx: nil, again: true),
            Rows.member(chat, late, "r", tx: nil, again: true),
        ] {
            #expect(join.send(message) == waiting)
            join.change(row)
        }
        join.commit()
        #expect(join.contains(#""change":"removed""#) && join.contains(#""user":"\#(late)","change":"added""#))
        #expect(join.task.counts.changesWithoutEffect == 1 && join.task.counts.changesRepeated == 0)
        join.change(Rows.chat(chat, "r", version: 6, tx: nil, again: true))
        join.commit()
        join.forget()
        #expect(join.send(message) == .done)
        #expect(Set(join.deliveries.flatMap(\.to)) == Set(users.dropLast() + [late]))
    }

    @Test func `who comes into a large chat by a second snapshot enters its audience, and a first tells nobody`() {
        let join = Transcript(largeChat: 3)
        for user in users { join.change(Rows.member(chat, user, "r", tx: nil)) }
        join.change(Rows.chat(chat, "r", version: 6, tx: nil))
        join.commit()
        #expect(join.lines.isEmpty && join.table.memberCount == 6)
        let late = UserID.random()
        join.change(Rows.member(chat, late, "r", tx: nil, again: true))
        join.commit()
        #expect(join.deliveries.map(\.to) == [[late]] && join.contains(#""enter":"\#(chat)""#), "\(join.lines)")
    }

    @Test func `muting a chat is no repeat of CDC's`() {
        let join = Transcript()
        join.create(chat, users)
        join.change(Rows.member(chat, users[0], "u", tx: 7))
        #expect(join.task.counts.changesRepeated == 0 && join.task.counts.changesWithoutEffect == 1)
        join.change(Rows.member(chat, users[0], "c", tx: 1))
        join.commit()
        #expect(join.task.counts.changesRepeated == 1 && join.lines.isEmpty)
    }

    @Test func `a change whose version was compacted away is in the table when the restore ends`() {
        let late = UserID.random()
        let join = Transcript(committed: Positions(incoming: 0, members: 3, signals: 0))
        let log = [
            Rows.member(chat, users[0], "c", tx: 1), Rows.chat(chat, "u", version: 1, tx: 1),
            Rows.member(chat, late, "c", tx: 2),
        ]
        for (offset, row) in log.enumerated() {
            join.task.restore(key: row.key.span, value: row.value.span, offset: Int64(offset), into: &join.table)
        }
        join.task.restored(into: &join.table)
        #expect(join.table.memberCount == 2 && join.task.position.members == 3)
        // Nobody is told of it a second time.
        join.change(Rows.chat(chat, "u", version: 3, tx: 3))
        join.commit()
        #expect(join.lines.isEmpty)
    }

    @Test func `what CDC repeats after a restart changes nothing and is told nobody`() {
        let join = Transcript()
        join.create(chat, Array(users.prefix(5)))
        let history = [
            Rows.member(chat, users[5], "c", tx: 2), Rows.chat(chat, "u", version: 2, tx: 2),
            Rows.member(chat, users[5], "d", tx: 3), Rows.chat(chat, "u", version: 3, tx: 3),
        ]
        for row in history { join.change(row) }
        #expect(join.task.counts.memberEvents == 2 + 5)
        join.commit()
        join.forget()
        for row in history {
            join.change(row)
            let found = join.table.find(chat).flatMap { join.table.member(users[5], of: $0) }
            #expect(found == nil, "nobody is a member again for a moment")
        }
        join.commit()
        #expect(join.lines.isEmpty)
    }
}
