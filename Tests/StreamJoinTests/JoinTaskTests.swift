import TestSupport
import Testing
import Wire

@testable import StreamJoin

@Suite struct JoinTaskTests {
    let chat = ChatID.random()
    let users = (0..<6).map { _ in UserID.random() }

    @Test func `a repeat is answered with the first seq, on the sender's device alone`() throws {
        let join = Transcript()
        join.create(chat, users)
        let (id, device) = (MessageID.random(), DeviceID.random())
        let message = IncomingMessage.text("a", from: users[0], in: chat, id: id, device: device)
        #expect(join.send(message, timestampMs: 50) == .done)
        join.forget()
        #expect(join.send(message, timestampMs: 60) == .done)
        #expect(
            join.lines == [
                #"{"to":["\#(users[0])"],"device":"\#(device)","event":{"type":"sent","id":"\#(id)","chat":"\#(chat)","seq":0,"ts":50,"repeat":true}}"#
            ])
        #expect(join.task.counts.already == 1 && join.task.counts.accepted == 1)
    }

    @Test func `strangers and unknown chats are refused alike`() {
        let join = Transcript()
        join.create(chat, users)
        for (from, chat) in [(UserID.random(), chat), (users[0], ChatID.random())] {
            join.forget()
            #expect(join.send(IncomingMessage.text("a", from: from, in: chat)) == .done)
            #expect(join.lines.count == 2)
            #expect(join.lines[0].hasPrefix(#"{"reason":"not_member""#))
            #expect(join.contains(#""code":"not_member""#))
        }
    }

    @Test func `garbage goes to chat.rejected and the next message is joined`() {
        let join = Transcript(partitions: 2, partition: ChatID(chat.uuid).partition(count: 2))
        join.create(chat, users)
        var other = ChatID.random()
        while other.partition(count: 2) == join.task.partition { other = .random() }
        let bad: [[UInt8]?] = [
            nil, [], [0xff, 0xfe], [UInt8]("{}".utf8), [UInt8](#"{"id":1}"#.utf8),
            [UInt8](String(repeating: "[", count: 100_000).utf8),
            IncomingMessage.text("a", from: users[0], in: other),
        ]
        for value in bad { #expect(join.send(value) == .done) }
        #expect(join.lines.count == bad.count)
        #expect(join.lines.allSatisfy { $0.hasPrefix(#"{"reason":""#) && $0.utf8.count < 70_000 })
        for line in join.lines {
            var reader = JSONReader(line.utf8.span)
            #expect(throws: Never.self) {
                try reader.skipValue()
                try reader.finish()
            }
        }
        #expect(join.send(IncomingMessage.text("a", from: users[0], in: chat)) == .done)
        #expect(join.task.counts.accepted == 1)
        // The same for the other topics.
        let rejected = join.task.counts.rejected
        join.change((key: [], value: [UInt8]("nonsense".utf8)))
        join.task.signal([UInt8]("nonsense".utf8).span, offset: 0, table: join.table, output: &join.output)
        #expect(join.task.counts.rejected == rejected + 2)
    }

    @Test func `a message waits for the membership its sender has seen`() {
        let join = Transcript()
        join.create(chat, users)
        let late = UserID.random()
        let message = IncomingMessage.text("a", from: late, in: chat, metaVersion: 2)
        let waiting = JoinStep.waiting(.membership(chat, metaVersion: 2))
        #expect(join.send(message) == waiting)
        #expect(join.task.question(nowNs: join.nowMs * 1_000_000) == nil)
        join.change(Rows.member(chat, late, "c", tx: 2))
        #expect(join.lines.isEmpty, "the change waits for its version")
        #expect(join.send(message) == waiting)
        join.change(Rows.chat(chat, "u", version: 2, tx: 2))
        // And for the commit of what it is joined against.
        #expect(join.send(message) == .waiting(.commit))
        #expect(join.lines.isEmpty, "nobody is told of what is not committed")
        join.commit()
        #expect(join.contains(#""change":"added","meta_version":2"#))
        join.forget()
        #expect(join.send(message) == .done)
        #expect(Set(join.deliveries.flatMap(\.to)) == Set(users + [late]))
    }

    @Test func `what messages wait for is counted and timed`() {
        let join = Transcript()
        join.create(chat, users)
        let message = IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 2)
        _ = join.send(message)
        join.nowMs += 40
        join.change(Rows.member(chat, users[1], "u", role: "admin", tx: 2))
        join.change(Rows.chat(chat, "u", version: 2, tx: 2))
        #expect(join.send(message) == .waiting(.commit))
        join.nowMs += 3
        join.commit()
        #expect(join.send(message) == .done)
        let counts = join.task.counts
        #expect(counts.heldMessages == 1 && counts.heldNs == 40_000_000)
        #expect(counts.commitWaits == 1 && counts.commitWaitNs == 3_000_000)
        _ = join.send(IncomingMessage.text("b", from: users[0], in: chat, metaVersion: 2))
        #expect(join.task.counts.heldMessages == 1, "what does not wait is not counted")
    }

    @Test func `after 250 ms Postgres is asked, and its answer holds until CDC has come as far`() throws {
        let join = Transcript()
        join.create(chat, users)
        let late = UserID.random()
        let message = IncomingMessage.text("a", from: late, in: chat, metaVersion: 3)
        _ = join.send(message)
        join.nowMs += 250
        let question = join.task.question(nowNs: join.nowMs * 1_000_000)
        #expect(question == .members(chat))
        #expect(join.task.question(nowNs: join.nowMs * 1_000_000) == nil, "asked once")
        join.task.questionFailed(.members(chat), nowNs: join.nowMs * 1_000_000)
        join.nowMs += 250
        join.answer(chat, metaVersion: 3, [late, users[1]])
        #expect(join.send(message) == .waiting(.membership(chat, metaVersion: 3)), "it is not in the log yet")
        join.change(try #require(join.memberships.first))
        #expect(join.send(message) == .waiting(.commit))
        join.commit()
        #expect(join.send(message) == .done)
        #expect(Set(join.deliveries.flatMap(\.to)) == [late, users[1]])
        #expect(join.table.shadowCount == 1 && join.forgotten.isEmpty)
        join.change(Rows.chat(chat, "u", version: 3, tx: 9))
        #expect(join.table.shadowCount == 0)
        join.commit()
        #expect(join.forgotten == [#"{"chat_id":"\#(chat)","table":"memberships"}"#])
    }

    @Test func `a membership that was read is used although CDC died in the middle of a transaction before it`() throws
    {
        let join = Transcript()
        join.create(chat, users)
        let late = UserID.random()
        let message = IncomingMessage.text("a", from: late, in: chat, metaVersion: 3)
        // Its end does not come.
        join.change(Rows.member(chat, late, "c", tx: 2))
        let half = join.task.next.members - 1
        #expect(join.send(message) != .done)
        join.nowMs += 250
        join.answer(chat, metaVersion: 3, [late, users[1]])
        join.change(try #require(join.memberships.first))
        #expect(join.send(message) == .waiting(.commit))
        join.commit()
        #expect(join.task.committed.members == half && join.task.committed.memberships == half + 2)
        #expect(join.send(message) == .done)

        // A successor has it as well, knows the half transaction, and tells of it when it is whole.
        let next = Transcript(committed: join.task.committed, replayEnd: 1)
        for user in users { next.table.put(user, in: chat, role: .member) }
        next.table.setChat(chat, metaVersion: 1)
        var offset = half
        next.task.restored(into: &next.table)
        for row in [Rows.member(chat, late, "c", tx: 2), join.memberships[0]] {
            next.task.catchUp(key: row.key.span, value: row.value.span, offset: offset, table: &next.table)
            offset += 1
        }
        next.task.caughtUp(table: &next.table, output: &next.output)
        #expect(next.table.memberCount == users.count && next.table.shadowCount == 1)
        #expect(next.send(message) == .done)
        #expect(Set(next.deliveries.flatMap(\.to)) == [late, users[1]])
        next.forget()
        #expect(next.forgotten.isEmpty && next.task.waitingChanges == 1)
        #expect(next.task.position.members == half && next.task.next.members == half + 2)
        next.change(Rows.chat(chat, "u", version: 2, tx: 2))
        next.commit()
        #expect(next.contains(#""change":"added","meta_version":2"#) && next.table.shadowCount == 1)
    }

    @Test func `half a transaction is nothing when CDC starts again before it`() {
        let join = Transcript()
        join.create(chat, users)
        join.change(Rows.member(chat, users[5], "d", tx: 3))
        join.change(Rows.member(chat, users[4], "d", tx: 3))
        // The one before it comes first, as it came before.
        join.change(Rows.member(chat, users[0], "u", role: "admin", tx: 2))
        join.commit()
        #expect(join.lines.isEmpty && join.table.memberCount == 6)
        join.change(Rows.chat(chat, "u", version: 2, tx: 2))
        join.commit()
        join.forget()
        join.change(Rows.member(chat, users[5], "d", tx: 3))
        join.change(Rows.member(chat, users[4], "d", tx: 3))
        join.commit()
        #expect(join.lines.isEmpty && join.table.memberCount == 6)
        join.change(Rows.chat(chat, "u", version: 3, tx: 3))
        join.commit()
        #expect(join.contains(#""meta_version":3"#) && join.table.memberCount == 4)
    }

    @Test func `a membership that comes back after CDC has written as much is of no use, and goes from the log`() throws
    {
        let join = Transcript()
        join.create(chat, users)
        _ = join.send(IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 2))
        join.nowMs += 250
        join.answer(chat, metaVersion: 2, [users[0]])
        join.change(Rows.member(chat, users[5], "d", tx: 2))
        join.change(Rows.chat(chat, "u", version: 2, tx: 2))
        join.change(try #require(join.memberships.first))
        join.commit()
        #expect(join.table.shadowCount == 0 && join.forgotten.count == 1)
        // Its tombstone is no deletion of the chat.
        let key = Array(join.forgotten[0].utf8)
        join.task.members(key: key.span, value: nil, offset: join.task.next.members, table: &join.table)
        #expect(join.table.findLogged(chat).map { join.table.exists($0) } == true)
    }

    @Test func `a chat that is deleted before its membership comes back stays deleted`() throws {
        let join = Transcript()
        join.create(chat, Array(users.prefix(2)))
        _ = join.send(IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 2))
        join.nowMs += 250
        join.answer(chat, metaVersion: 2, [users[0]])
        for (tx, user) in [(2, users[1]), (3, users[0])] as [(Int64, UserID)] {
            join.change(Rows.member(chat, user, "d", tx: tx))
            join.change(Rows.chat(chat, "u", version: tx, tx: tx))
        }
        join.change(Rows.chat(chat, "d", version: 3, tx: 4))
        #expect(join.table.find(chat) == nil)
        join.change(try #require(join.memberships.first))
        join.commit()
        #expect(join.table.find(chat) == nil && join.table.shadowCount == 0 && join.forgotten.count == 1)
    }

    @Test func `a large chat's membership is not read into the log`() {
        let join = Transcript(largeChat: 5)
        join.create(chat, Array(users.prefix(4)))
        let message = IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 2)
        _ = join.send(message)
        join.nowMs += 250
        join.answer(chat, metaVersion: 2, users)
        #expect(join.memberships.isEmpty && join.send(message) != .done)
    }

    @Test func `a version that never was is not waited for once Postgres has answered`() {
        let join = Transcript()
        join.create(chat, users)
        let message = IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 99)
        _ = join.send(message)
        join.nowMs += 300
        join.answer(chat, metaVersion: 1, [])
        #expect(join.send(message) == .waiting(.commit))
        #expect(join.task.position.decision == .withoutVersion)
        join.commit()
        let committed = join.task.committed
        #expect(join.send(message) == .done)
        #expect(join.task.counts.accepted == 1 && join.deliveries.flatMap(\.to).count == 6)
        #expect(join.task.position.decision == nil)

        // A successor asks nobody.
        let next = Transcript(committed: committed, replayEnd: 1)
        for user in users { next.table.put(user, in: chat, role: .member) }
        next.table.setChat(chat, metaVersion: 1)
        #expect(next.send(message) == .done && next.task.counts.accepted == 1)
    }

    @Test func `what cannot be checked in time is refused, and the partition goes on`() {
        let join = Transcript()
        join.create(chat, users)
        let message = IncomingMessage.text("a", from: users[0], in: chat, metaVersion: 9)
        _ = join.send(message)
        join.nowMs += 29_999
        #expect(join.send(message) != .done)
        join.nowMs += 1
        #expect(join.task.deadlineNs.map { $0 <= join.nowMs * 1_000_000 } == true)
        #expect(join.send(message) == .waiting(.commit))
        join.commit()
        let committed = join.task.committed
        #expect(join.send(message) == .done)
        #expect(join.contains(#""code":"unavailable""#))
        let next = Transcript(committed: committed, replayEnd: 1)
        #expect(next.send(message) == .done && next.contains(#""code":"unavailable""#), "a successor refuses it too")
        #expect(join.send(IncomingMessage.text("b", from: users[0], in: chat)) == .done)
        #expect(join.task.counts.accepted == 1)
    }

    @Test func `only its sender edits a message, and only the sender or an admin deletes it`() {
        let join = Transcript()
        join.create(chat, users, admins: [users[5]])
        #expect(join.send(IncomingMessage.text("a", from: users[0], in: chat)) == .done)
        let cases: [(String, Int64, UserID, String?)] = [
            ("edit", 0, users[0], nil), ("delete", 0, users[0], nil), ("delete", 0, users[5], nil),
            ("edit", 0, users[5], "not_allowed"), ("edit", 0, users[1], "not_allowed"),
            ("delete", 0, users[1], "not_allowed"), ("edit", 1, users[0], "unknown_message"),
            ("edit", 999, users[0], "unknown_message"), ("delete", -1, users[0], "unknown_message"),
        ]
        for (kind, target, from, code) in cases {
            join.forget()
            #expect(join.send(IncomingMessage.change(kind, target, from: from, in: chat)) == .done)
            if let code {
                #expect(join.contains(#""code":"\#(code)""#), "\(kind) \(target)")
            } else {
                #expect(join.contains(#""kind":"\#(kind)""#) && join.contains(#""target":\#(target)"#))
            }
        }
    }

    @Test func `the author of an old message is asked for, once`() {
        let join = Transcript(committed: Positions(incoming: 1000, members: 0, signals: 0), replayEnd: 1000)
        join.create(chat, users)
        let edit = IncomingMessage.change("edit", 7, from: users[0], in: chat)
        #expect(join.send(edit) == .waiting(.original(seq: 7)))
        #expect(join.task.question(nowNs: join.nowMs * 1_000_000) == .original(seq: 7))
        join.task.originalRead(seq: 7, .message(chat: chat, from: users[0]))
        #expect(join.send(edit) == .done)
        #expect(join.task.counts.accepted == 1)
        let elsewhere = IncomingMessage.change("edit", 8, from: users[0], in: chat)
        _ = join.send(elsewhere)
        join.task.originalRead(seq: 8, .message(chat: .random(), from: users[0]))
        #expect(join.send(elsewhere) == .done)
        #expect(join.contains(#""code":"unknown_message""#))
    }

    @Test func `time never runs backwards along a partition`() throws {
        let join = Transcript()
        join.create(chat, users)
        var last: Int64 = 0
        for timestamp in [100, 90, 120, 119, 120, 300] as [Int64] {
            join.forget()
            _ = join.send(IncomingMessage.text("a", from: users[0], in: chat), timestampMs: timestamp)
            let accepted = try AcceptedMessage(decoding: join.lines[0].utf8.span)
            #expect(accepted.ts == max(last, timestamp))
            last = accepted.ts
        }
    }

    @Test func `signals reach the others in small chats, and nobody in large ones`() {
        func signal(_ kind: Signal.Kind, from user: UserID, in chat: ChatID, seq: Int64 = 1) -> [UInt8] {
            var json = JSONWriter()
            Signal(chat: chat, from: user, device: .random(), kind: kind, seq: kind == .typing ? nil : seq, ts: 1)
                .write(to: &json)
            return json.bytes
        }
        let join = Transcript(largeChat: 5)
        let large = ChatID.random()
        join.create(chat, Array(users.prefix(4)))
        join.create(large, users, version: 2)
        var offset: Int64 = 0
        func send(_ join: Transcript, _ value: [UInt8]) -> Set<UserID> {
            join.forget()
            join.task.signal(value.span, offset: offset, table: join.table, output: &join.output)
            join.take()
            offset += 1
            return Set(join.deliveries.flatMap(\.to))
        }
        #expect(send(join, signal(.typing, from: users[0], in: chat)) == Set(users[1...3]))
        #expect(join.contains(#"{"type":"typing""#))
        #expect(send(join, signal(.read, from: users[0], in: chat)) == [], "there is nothing yet")
        for text in ["a", "b", "c"] { _ = join.send(IncomingMessage.text(text, from: users[1], in: chat)) }
        #expect(send(join, signal(.delivered, from: users[0], in: chat)) == Set(users[1...3]))
        #expect(send(join, signal(.read, from: users[0], in: chat)) == Set(users[0...3]), "one's other devices too")
        #expect(join.contains(#""type":"receipt""#) && join.contains(#""kind":"read","seq":1"#))
        #expect(!send(join, signal(.read, from: users[0], in: chat, seq: 1_000_000_000_000_000)).isEmpty)
        #expect(join.contains(#""kind":"read","seq":2"#), "nobody has read more than there is")
        #expect(send(join, signal(.read, from: users[0], in: large)) == [])
        #expect(send(join, signal(.read, from: users[5], in: chat)) == [])
    }

    @Test func `a chat of 100,000 members costs a message one record a partition`() {
        let join = Transcript()
        let members = (0..<100_000).map { _ in UserID.random() }
        join.task = JoinTask(
            partition: 0, setup: JoinSetup(chatPartitions: 1, deliveryPartitions: 2), committed: Positions(),
            replayEnd: 0)
        for user in members { join.table.put(user, in: chat, role: .member) }
        join.table.setChat(chat, metaVersion: 1)
        #expect(join.send(IncomingMessage.text("a", from: members[777], in: chat, metaVersion: 1)) == .done)
        #expect(join.lines.count == 3 && join.deliveries.allSatisfy { $0.largeChat == chat })
        #expect(join.send(IncomingMessage.text("a", from: .random(), in: chat, metaVersion: 1)) == .done)
        #expect(join.contains("not_member"))
    }

    @Test func `a message of which a record would be too large is refused whole, and the next is joined`() {
        let join = Transcript(recordBytesMax: 2000)
        join.create(chat, users)
        let told = join.task.counts.recipients
        // Alone it would fit; with its recipients it does not.
        let id = MessageID.random()
        let long = IncomingMessage.text(String(repeating: "x", count: 1720), from: users[0], in: chat, id: id)
        #expect(join.send(long) == .done)
        #expect(join.lines.count == 2 && join.lines[0].hasPrefix(#"{"reason":"too_large""#), "\(join.lines)")
        #expect(join.deliveries.map(\.to) == [[users[0]]] && join.contains(#""code":"too_large""#))
        #expect(join.task.counts.accepted == 0 && join.task.counts.recipients == told)
        join.forget()
        // It is no repeat of what was not accepted.
        #expect(join.send(IncomingMessage.text("short", from: users[0], in: chat, id: id)) == .done)
        #expect(Set(join.deliveries.flatMap(\.to)) == Set(users))
    }

    @Test func `where the log begins again seq goes on above, and what was accepted before is known`() throws {
        let log = try #require(LogIdentity(topicID: UUID(high: 3, low: 4)))
        let run = LogRun(log: log, generation: 1)
        var positions = Positions()
        positions.runs.incoming = run
        let join = Transcript(committed: positions)
        // Of the log before: its messages are in chat.messages.
        let before = MessageID.random()
        var json = JSONWriter()
        let source: [UInt8] = []
        let old = IncomingMessage(id: before, chat: chat, from: users[0], device: .random(), kind: .text)
        old.writeAccepted(seq: 5000, ts: 77, to: &json, source: source.span)
        let bytes = json.bytes
        join.task.recall(try AcceptedMessage(decoding: bytes.span))
        join.create(chat, users)
        #expect(join.send(IncomingMessage.text("first of the new log", from: users[0], in: chat)) == .done)
        let seq = run.seq(of: 0)
        #expect(seq > 5000 && join.contains(#""seq":\#(seq),"#), "\(join.lines)")
        #expect(join.deliveries.allSatisfy { $0.source == "chat.incoming/0/0" && $0.tag == run.tag })
        #expect(join.task.position.runs.incoming == run && join.task.position.incoming == 1)
        // A repeat is one, whichever log it stood in first; and who wrote it is known.
        join.forget()
        #expect(join.send(IncomingMessage.text("again", from: users[0], in: chat, id: before)) == .done)
        #expect(join.contains(#""seq":5000,"ts":77,"repeat":true"#), "\(join.lines)")
        #expect(join.send(IncomingMessage.change("edit", 5000, from: users[0], in: chat)) == .done)
        #expect(join.contains(#""target":5000"#))
        #expect(join.send(IncomingMessage.change("edit", seq, from: users[0], in: chat)) == .done)
        #expect(join.contains(#""target":\#(seq)"#))
        // What is remembered no more stood in a log that is gone.
        join.forget()
        #expect(join.send(IncomingMessage.change("edit", 4999, from: users[0], in: chat)) == .done)
        #expect(join.contains("unknown_message"))
    }
}
