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

    // MARK: Many at once

    /// One statement adds these, as CDC writes it.
    private func addition(_ users: [UserID], version: Int64, tx: Int64) -> [(key: [UInt8], value: [UInt8])] {
        users.map { Rows.member(chat, $0, "c", tx: tx) } + [Rows.chat(chat, "u", version: version, tx: tx)]
    }

    @Test func `a statement that adds many is one event for all members, and one for each of those added`() {
        let join = Transcript(largeChat: 200)
        join.create(chat, users)
        let many = (0..<101).map { _ in UserID.random() }
        let before = join.task.counts.recipients
        for row in addition(many, version: 2, tx: 2) { join.change(row) }
        join.commit()
        let own = join.deliveries.filter { $0.record.contains(#""type":"member""#) }
        #expect(
            own.map(\.to) == many.map { [$0] }
                && own.allSatisfy { $0.record.contains(#""change":"added","meta_version":2"#) })
        let all = join.deliveries.filter { $0.record.contains(#""type":"members_changed""#) }
        #expect(Set(all.flatMap(\.to)) == Set(users + many) && all.count == 2, "a record for each partition")
        #expect(all.allSatisfy { $0.record.contains(#""added":101,"removed":0,"roles":0,"meta_version":2"#) })
        #expect(all.allSatisfy { $0.source == "chat.members/0/\(join.task.next.members - 1)" }, "the chat's row")
        #expect(join.task.counts.bulkChanges == 1 && join.task.counts.recipients - before == 101 + 107)

        // A hundred are told one by one.
        join.forget()
        for user in many.dropLast() { join.change(Rows.member(chat, user, "d", tx: 3)) }
        join.change(Rows.chat(chat, "u", version: 3, tx: 3))
        join.commit()
        #expect(!join.contains("members_changed") && join.task.counts.bulkChanges == 1)
        #expect(Set(join.deliveries.flatMap(\.to)) == Set(users + many))
    }

    @Test func `of a chat that grows large at once each one enters, and nobody is told of many`() {
        let join = Transcript(largeChat: 5)
        join.create(chat, Array(users.prefix(2)))
        let many = (0..<150).map { _ in UserID.random() }
        for row in addition(many, version: 2, tx: 2) { join.change(row) }
        join.commit()
        var audience: Set<UserID> = []
        for delivery in join.deliveries where delivery.record.contains(#""enter":"\#(chat)""#) {
            audience.formUnion(delivery.to)
        }
        #expect(audience == Set(many + users.prefix(2)) && !join.contains("members_changed"))
        join.forget()
        for user in many { join.change(Rows.member(chat, user, "d", tx: 3)) }
        join.change(Rows.chat(chat, "u", version: 3, tx: 3))
        join.commit()
        for delivery in join.deliveries where delivery.record.contains(#""leave":"\#(chat)""#) {
            audience.subtract(delivery.to)
        }
        #expect(audience.isEmpty && join.contains(#""type":"members_changed""#), "those who are left are told")
    }

    @Test func `of a chat that is deleted each member is told of themself alone`() {
        let join = Transcript()
        join.create(chat, users)
        join.change(Rows.chat(chat, "d", version: 1, tx: 2))
        for user in users { join.change(Rows.member(chat, user, "d", tx: 2)) }
        join.commit()
        #expect(join.deliveries.map(\.to) == users.map { [$0] } && join.table.memberCount == 0)
    }

    @Test func `messages of other chats go between the slices of a transaction`() {
        let join = Transcript()
        let other = ChatID.random()
        join.create(chat, users)
        join.create(other, users, version: 2)
        let many = (0..<5000).map { _ in UserID.random() }
        for row in addition(many, version: 2, tx: 9) { join.change(row) }
        #expect(join.task.isBusy && !join.task.takesChanges && join.task.waitingChanges > 4000)
        var slices = 0
        while join.task.isBusy {
            slices += 1
            let text = IncomingMessage.text("to others", from: users[0], in: other, metaVersion: 2)
            #expect(join.send(text) == .done, "another chat's message waits for nothing")
            // As the worker does: what is committed is told, and the next slice follows.
            join.commit()
            join.task.goOn(table: &join.table)
        }
        join.commit()
        #expect(slices >= 5000 / 512 && join.task.position.members == join.task.position.applied)
        #expect(join.table.findLogged(chat).map { join.table.memberCount(of: $0) } == users.count + many.count)
        #expect(join.send(IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 2)) == .done)
    }

    @Test
    func `a successor goes on in the middle of a transaction, telling all of it again and applying each row once`() {
        let join = Transcript(largeChat: 300, sliceMax: 50)
        join.create(chat, users)
        let many = (0..<200).map { _ in UserID.random() }
        let rows = addition(many, version: 2, tx: 2)
        let start = join.task.next.members
        for row in rows { join.change(row) }
        join.commit()
        join.task.goOn(table: &join.table)
        join.commit()
        let committed = join.task.committed
        #expect(committed.members == start && committed.applied == start + 100)
        #expect(committed.memberships == start + Int64(rows.count))

        // A part of a statement is no state of the chat.
        #expect(join.send(IncomingMessage.text("a", from: users[0], in: chat)) == .waiting(.commit))

        let next = Transcript(largeChat: 300, sliceMax: 50, committed: committed, replayEnd: 1)
        for user in users { next.table.put(user, in: chat, role: .member) }
        next.table.setChat(chat, metaVersion: 1)
        next.task.restored(into: &next.table)
        for (index, row) in rows.enumerated() {
            next.task.catchUp(
                key: row.key.span, value: row.value.span, offset: start + Int64(index), table: &next.table)
        }
        next.task.caughtUp(table: &next.table, output: &next.output)
        next.take()
        #expect(next.table.memberCount == users.count + 100 && next.task.isBusy, "as of the commit")
        #expect(next.deliveries.map(\.to) == many.prefix(100).map { [$0] }, "alone, as the first time")
        #expect(!next.task.canGoOn, "membership stands still during a replay")
        // The predecessor had to wait here, so the replay is over.
        #expect(next.send(IncomingMessage.text("a", from: users[0], in: chat)) == .waiting(.commit))
        #expect(next.task.canGoOn)
        while next.task.isBusy {
            next.task.goOn(table: &next.table)
            next.commit()
        }
        #expect(next.contains(#""added":200,"removed":0"#))
        #expect(next.send(IncomingMessage.text("a", from: users[0], in: chat)) == .done)
        #expect(Set(next.deliveries.suffix(2).flatMap(\.to)) == Set(users + many))
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
