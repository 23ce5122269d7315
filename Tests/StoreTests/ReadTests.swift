import PostgresClient
import Store
import TestSupport
import Testing
import Wire

@Suite struct ReadTests {
    @Test func `pages before and after meet, whatever their size and over days`() throws {
        var store = try freshStore(days: 4)
        var random = SeededGenerator.announced("pages")
        let (ann, bob) = (UserID.random(), UserID.random())
        let chat = try store.group([ann, bob])
        let other = try store.group([ann, bob])
        var expected: [Int64] = []
        var ts: Int64 = 5
        var markedMs: Int64 = -60_000
        for seq in 0..<300 as Range<Int64> {
            // Several messages may share a millisecond, and some days are nearly empty.
            ts += Int64.random(in: 0...3, using: &random) == 0 ? Int64.random(in: 0..<4_000_000, using: &random) : 0
            let kind = seq % 10 == 7 ? "edit" : seq % 10 == 8 ? "deleted" : "text"
            try store.say("\(seq)", by: ann, in: seq % 3 == 0 ? other : chat, ts: ts, seq: seq, kind: kind)
            if ts >= markedMs + 60_000 {
                markedMs = ts
                try store.postgres.query(
                    "INSERT INTO sink_marks (partition, seq, ts, at_ms) VALUES (0, $1, $2, $2)", [.int(seq), .int(ts)])
            }
            if seq % 3 != 0, kind != "edit" { expected.append(seq) }
        }
        func before(_ seq: Int64?, from: Int64 = 0, _ limit: Int) throws -> [StoredMessage] {
            try store.rows(MessagePages.before(seq, in: chat, partition: 0, readableFromMs: from, limit: limit))
        }
        func after(_ seq: Int64, from: Int64 = 0, _ limit: Int) throws -> [StoredMessage] {
            try store.rows(MessagePages.after(seq, in: chat, partition: 0, readableFromMs: from, limit: limit))
        }
        for limit in [1, 7, 50, 200] {
            var back = try before(nil, limit).map(\.seq)
            var forth = try after(-1, limit).map(\.seq)
            for _ in 0..<expected.count where back.count < expected.count {
                let page = try before(back.last, limit)
                #expect(page.count <= limit)
                back += page.map(\.seq)
            }
            for _ in 0..<expected.count where forth.count < expected.count {
                forth += try after(forth.last ?? -1, limit).map(\.seq)
            }
            #expect(back == expected.reversed())
            #expect(forth == expected)
        }
        // From any seq, also one of another chat.
        for seq in [0, 1, 150, 151, 299, 1_000] as [Int64] {
            #expect(try before(seq, 200).map(\.seq) == expected.filter { $0 < seq }.reversed())
            #expect(try after(seq, 200).map(\.seq) == expected.filter { $0 > seq })
        }
        let from = try #require(try after(-1, 200).dropFirst(100).first?.ts)
        let late = try before(nil, from: from, 200)
        #expect(!late.isEmpty && late.allSatisfy { $0.ts >= from }, "nothing from before the reader joined")
        #expect(try after(-1, from: from, 200) == late.reversed())
    }

    @Test func `tokens of the conversation list come back, and forged ones are refused`() {
        let place = ConversationPlace(activeAtMs: 1_700_000_000_123, chat: .random())
        #expect(ConversationPlace(token: place.token) == place)
        let chat = ChatID.random()
        for token in ["", ".", "1", "1.", "1.x", "-1.\(chat)", "1.\(chat).3", "zzzzzzzzzzzzzz.\(chat)"] {
            #expect(ConversationPlace(token: token) == nil)
        }
    }

    @Test(arguments: [false, true])
    func `who joins later reads from then on in pages, list and sync alike, unless the chat opens its history`(
        isOpen: Bool
    ) throws {
        var store = try freshStore()
        let (ann, eve) = (UserID.random(), UserID.random())
        let chat = try store.group([ann, eve], openHistory: isOpen)
        for seq in 0..<10 as Range<Int64> { try store.say("m\(seq)", by: ann, in: chat, ts: 100 + seq * 10, seq: seq) }
        func read() throws -> [[Int64]] {
            let standing = try #require(try store.first(Membership.standing(of: eve, in: chat)))
            let from = standing.readableFromMs
            let before = try store.rows(
                MessagePages.before(nil, in: chat, partition: 0, readableFromMs: from, limit: 50))
            let after = try store.rows(MessagePages.after(-1, in: chat, partition: 0, readableFromMs: from, limit: 50))
            let bounds = [Sync.Bound(partition: 0, ts: 0)]
            var plan = SyncPlan(
                try store.rows(Sync.chats(of: eve, since: bounds)), bounds: bounds, partitionCount: 1)
            return [before.reversed().map(\.seq), after.map(\.seq), try store.rows(plan.nextPage()).map(\.seq)]
        }
        let all = Array(0..<10 as Range<Int64>)
        func join(_ ms: Int64) throws {
            try store.postgres.query(
                "UPDATE members SET joined_at = to_timestamp($2::bigint / 1000.0) WHERE user_id = $1",
                [.id(eve), .int(ms)])
        }
        try join(145)
        #expect(try read() == Array(repeating: isOpen ? all : [5, 6, 7, 8, 9], count: 3))
        var line = try #require(try store.first(Conversations.one(chat, of: eve)))
        #expect(line.unread == (isOpen ? 10 : 5) && line.lastPreview == "m9")

        // After everything.
        try join(1_000)
        #expect(try read() == Array(repeating: isOpen ? all : [], count: 3))
        line = try #require(try store.first(Conversations.one(chat, of: eve)))
        #expect(line.unread == (isOpen ? 10 : 0) && line.lastPreview == (isOpen ? "m9" : nil))
        #expect(line.lastFrom == (isOpen ? ann : nil) && line.lastSeq == (isOpen ? 9 : nil))
        #expect(try store.rows(Conversations.of(eve, limit: 5)) == [line])
    }

    @Test func `a list that is paged while others speak shows each silent chat once and none twice, newest first`()
        throws
    {
        var random = SeededGenerator.announced("conversation pages")
        var store = try freshStore()
        let (ann, bob) = (UserID.random(), UserID.random())
        var chats: [ChatID] = []
        for _ in 0..<40 { chats.append(try store.group([ann, bob])) }
        _ = try store.group([bob])
        // Some were never spoken in, and many are as old as one another.
        try store.postgres.execute("UPDATE chats SET created_at = to_timestamp(0.005)")
        var now: Int64 = 10
        var seq: Int64 = 0
        func speak() throws -> ChatID {
            let chat = chats[Int.random(in: 0..<30, using: &random)]
            seq += 1
            now += Int64.random(in: 0...1, using: &random)
            try store.say("x", by: bob, in: chat, ts: now, seq: seq)
            return chat
        }
        for _ in 0..<20 { _ = try speak() }
        for _ in 0..<12 {
            var active: Set<ChatID> = []
            var listed: [Conversation] = []
            var place: ConversationPlace?
            // What is said from here on is newer than the first page.
            now += 1
            repeat {
                let limit = Int.random(in: 1...9, using: &random)
                let page = try store.rows(Conversations.of(ann, before: place, limit: limit))
                listed += page
                place = page.count < limit ? nil : page.last.flatMap { ConversationPlace(token: $0.place.token) }
                for _ in 0..<Int.random(in: 0...3, using: &random) { active.insert(try speak()) }
            } while place != nil
            let ids = listed.map(\.chat)
            #expect(Set(ids).count == ids.count)
            #expect(Set(ids).union(active) == Set(chats))
            let places = listed.map { ($0.activeAtMs, $0.chat) }
            #expect(zip(places, places.dropFirst()).allSatisfy { $0 > $1 })
        }
    }

    @Test func `the event of a stored message is what was sent`() throws {
        var store = try freshStore()
        let (ann, bob) = (UserID.random(), UserID.random())
        let chat = try store.group([ann, bob])
        try store.say("hi \\u00e9", by: ann, in: chat, ts: 77, seq: 3)
        let message = try #require(
            try store.first(MessagePages.before(nil, in: chat, partition: 0, readableFromMs: 0, limit: 1)))
        var json = JSONWriter()
        message.writeEvent(to: &json)
        #expect(
            String(decoding: json.bytes, as: UTF8.self)
                == #"{"type":"message","chat":"\#(chat)","seq":3,"id":"\#(message.id)","from":"\#(ann)","ts":77,"kind":"text","text":"hi \u00e9"}"#
        )
    }

    @Test func `the conversation list is newest first, with what is unread`() throws {
        var store = try freshStore()
        let (ann, bob) = (UserID.random(), UserID.random())
        _ = try store.first(Accounts.putUser(bob, name: "Bob"))
        let direct = try #require(try store.first(Accounts.directChat(.random(), ann, bob)))
        try store.postgres.query("UPDATE members SET joined_at = to_timestamp(0)")
        let group = try store.group([bob, ann])
        let silent = try store.group([bob, ann])
        try store.postgres.query("UPDATE chats SET created_at = to_timestamp(0.001)")
        for seq in 0..<10 as Range<Int64> { try store.say("d\(seq)", by: bob, in: direct, ts: 100 + seq, seq: seq) }
        for seq in 10..<14 as Range<Int64> { try store.say("g\(seq)", by: ann, in: group, ts: 200 + seq, seq: seq) }
        try store.postgres.query(
            "INSERT INTO read_state (user_id, chat_id, read_seq, read_ts) VALUES ($1, $2, 6, 100)",
            [.id(ann), .id(direct)])

        let list = try store.rows(Conversations.of(ann, limit: 10))
        #expect(list.map(\.chat) == [group, direct, silent])
        #expect(list.map(\.unread) == [0, 3, 0], "one's own messages are not unread")
        #expect(list[1].peer == bob && list[1].peerName == "Bob" && list[1].isDirect)
        #expect(list[1].lastPreview == "d9" && list[1].lastSeq == 9 && list[1].lastFrom == bob && list[1].readSeq == 6)
        #expect(list[2].lastSeq == nil && list[2].activeAtMs == 1)
        #expect(try store.rows(Conversations.of(bob, limit: 10)).map(\.unread) == [4, 0, 0])

        var paged: [ChatID] = []
        var place: ConversationPlace?
        while let last = try store.rows(Conversations.of(ann, before: place, limit: 1)).first {
            paged.append(last.chat)
            place = ConversationPlace(token: last.place.token)
        }
        #expect(paged == [group, direct, silent])

        // A member who joined later knows nothing of what was said before.
        try store.postgres.query(
            "UPDATE members SET joined_at = to_timestamp(0.212) WHERE user_id = $1 AND chat_id = $2",
            [.id(bob), .id(group)])
        #expect(try store.rows(Conversations.of(bob, limit: 10)).first?.unread == 2)
        let members = try store.rows(ChatMembers.of(direct))
        #expect(members.map(\.user) == [ann, bob].sorted())
        #expect(members.first { $0.user == ann }?.readSeq == 6)
        #expect(members.first { $0.user == bob }.map { $0.name == "Bob" && $0.readSeq == nil } == true)
    }

    @Test func `a sync gives all that was accepted after the cursor, in order per chat, at any page size`() throws {
        var store = try freshStore()
        var random = SeededGenerator.announced("sync")
        let users = (0..<4).map { _ in UserID.random() }
        let topic = "chat.messages"
        let partitions: Int32 = 4
        var chats: [ChatID] = []
        for _ in 0..<12 { chats.append(try store.group(users)) }
        var seqs = [Int64](repeating: 0, count: Int(partitions))
        var all: [(chat: ChatID, ts: Int64, seq: Int64, at: Int64)] = []
        var now: Int64 = 1000
        for _ in 0..<800 {
            let chat = chats[Int.random(in: 0..<12, using: &random)]
            let partition = Int(chat.partition(count: partitions))
            now += Int64.random(in: 0..<60_000, using: &random)
            // The join was up to an hour behind, by partition and time.
            let at = now + (now / 4_000_000 % 3) * Int64(partition) * 1_200_000
            let last = all.last { Int($0.chat.partition(count: partitions)) == partition }
            seqs[partition] += 1
            try store.say("x", by: users[0], in: chat, ts: now, seq: seqs[partition])
            all.append((chat, now, seqs[partition], max(at, last?.at ?? 0)))
        }
        for partition in 0..<partitions {
            try store.postgres.query(
                "INSERT INTO sink_progress (topic, partition, next_offset, reached_ms) VALUES ($1, $2, 1, 99000)",
                [.text(topic), .int(Int64(partition))])
            var lastMark: Int64 = -1
            for row in all where row.chat.partition(count: partitions) == partition && row.at >= lastMark + 60_000 {
                lastMark = row.at
                try store.postgres.query(
                    "INSERT INTO sink_marks (partition, seq, ts, at_ms) VALUES ($1, $2, $3, $4)",
                    [.int(Int64(partition)), .int(row.seq), .int(row.ts), .int(row.at)])
            }
        }
        let coverage = try #require(try store.first(Sync.coverage(topic: topic)))
        #expect(coverage.partitionCount == 4 && coverage.reachedMs == 99_000)
        #expect(coverage.isComplete(upToMs: 98_000) && !coverage.isComplete(upToMs: 98_001))
        #expect(!coverage.isTooOld(cursorMs: 10_000))

        for round in 0..<20 {
            let cursor = Int64.random(in: 0..<now, using: &random)
            let bounds = try store.rows(Sync.bounds(afterMs: cursor, topic: topic))
            let found = try store.rows(Sync.chats(of: users[1], since: bounds))
            var plan = SyncPlan(found, bounds: bounds, partitionCount: partitions, limit: [1, 3, 50, 5000][round % 4])
            var got: [StoredMessage] = []
            while !plan.isFinished {
                let rows = try store.rows(plan.nextPage())
                got += rows
                plan.received(rows)
            }
            for chat in chats {
                let seqs = got.filter { $0.chat == chat }.map(\.seq)
                #expect(seqs == seqs.sorted() && Set(seqs).count == seqs.count)
                let missed = all.filter { $0.chat == chat && $0.at > cursor }.map(\.seq)
                #expect(Set(missed).isSubset(of: seqs), "cursor \(cursor)")
            }
            #expect(got.count < all.count || cursor < 4_000_000, "a sync is not everything")
        }
    }
}
