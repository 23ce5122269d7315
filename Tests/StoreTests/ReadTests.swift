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
        for seq in 0..<300 as Range<Int64> {
            // Several messages may share a millisecond, and some days are nearly empty.
            ts += Int64.random(in: 0...3, using: &random) == 0 ? Int64.random(in: 0..<4_000_000, using: &random) : 0
            let kind = seq % 10 == 7 ? "edit" : seq % 10 == 8 ? "deleted" : "text"
            try store.say("\(seq)", by: ann, in: seq % 3 == 0 ? other : chat, ts: ts, seq: seq, kind: kind)
            if seq % 3 != 0, kind != "edit" { expected.append(seq) }
        }
        for limit in [1, 7, 50, 200] {
            var back: [Int64] = []
            var place: MessagePlace?
            while true {
                let page = try store.rows(MessagePages.before(place, in: chat, readableFromMs: 0, limit: limit))
                guard let last = page.last else { break }
                #expect(page.count <= limit)
                back += page.map(\.seq)
                place = MessagePlace(token: last.place.token)
            }
            #expect(back == expected.reversed())
            var forth: [Int64] = []
            var after = MessagePlace(ts: 0, seq: 0)
            while true {
                let page = try store.rows(MessagePages.after(after, in: chat, readableFromMs: 0, limit: limit))
                guard let last = page.last else { break }
                forth += page.map(\.seq)
                after = last.place
            }
            #expect(forth == expected)
        }
        let from = try #require(
            try store.rows(MessagePages.after(.init(ts: 0, seq: 0), in: chat, readableFromMs: 0, limit: 200)).last?.ts)
        let late = try store.rows(MessagePages.before(nil, in: chat, readableFromMs: from, limit: 200))
        #expect(!late.isEmpty && late.allSatisfy { $0.ts >= from }, "nothing from before the reader joined")
    }

    @Test func `tokens of pages come back, and forged ones are refused`() {
        let place = MessagePlace(ts: 1_700_000_000_123, seq: 987_654_321)
        #expect(MessagePlace(token: place.token) == place)
        for token in ["", ".", "1", "1.", "-1.2", "1.-2", "1.2.3", "z_.1", String(repeating: "z", count: 40) + ".1"] {
            #expect(MessagePlace(token: token) == nil)
        }
        let conversation = ConversationPlace(activeAtMs: 1_700_000_000_123, chat: .random())
        #expect(ConversationPlace(token: conversation.token) == conversation)
        #expect(ConversationPlace(token: "1.x") == nil)
    }

    @Test func `the event of a stored message is what was sent`() throws {
        var store = try freshStore()
        let (ann, bob) = (UserID.random(), UserID.random())
        let chat = try store.group([ann, bob])
        try store.say("hi \\u00e9", by: ann, in: chat, ts: 77, seq: 3)
        let message = try #require(try store.first(MessagePages.before(nil, in: chat, readableFromMs: 0, limit: 1)))
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
        #expect(try store.rows(ReadStates.of(direct)).map(\.readSeq) == [6])
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
