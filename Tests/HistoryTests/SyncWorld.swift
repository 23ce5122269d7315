import Delivery
@testable import History
import PostgresClient
import PushLink
import Store
import TestSupport
import Testing
import Wire

/// Senders, the join, the sink, Delivery's windows and devices on one thread, from one seed, with a real Postgres in the
/// middle.
///
/// What decides is the product's own: what the sink writes (`SinkBatch`, `SinkWriter`), what a sync asks (`Sync`,
/// `SyncPlan`), what a window still has (`HotWindow`) and what a session passes on (`SessionFeed`). Time is virtual, so
/// hours away cost nothing.
final class SyncWorld {
    /// Of the chat-side topics and of the user-side ones.
    static let partitions: Int32 = 2
    static let userCount = 4
    static let chatCount = 6
    static let topic = "chat.messages"

    struct Message {
        var chat: Int
        var seq: Int64
        var ts: Int64
        var sender: Int
        /// Of an edit.
        var target: Int64?
        /// When chat.messages took it.
        var recordMs: Int64 = 0
    }

    /// A record of chat.deliveries.
    struct Delivery {
        var cursor: Cursor
        var message: Message
        var users: [Int]
    }

    /// A partition of the chat-side topics, and how far the sink is in it.
    struct ChatSide {
        var seq: Int64 = 0
        /// Sent, and not yet joined.
        var incoming: [Message] = []
        var messages: [Message] = []
        var stored = SinkBatch.Position(nextOffset: 0)
    }

    struct UserSide {
        var deliveries: [Delivery] = []
        var window: HotWindow
    }

    let seed: UInt64
    var random: SeededGenerator
    var nowMs: Int64 = 1_700_000_000_000
    var users: [UserID] = []
    var chats: [ChatID] = []
    /// Since when each user is in each chat.
    var joinedMs: [[Int: Int64]] = []
    var chatSides: [ChatSide]
    var userSides: [UserSide]
    var devices: [SyncDevice] = []
    private var days = Days()
    private let windowBytes: Int
    private(set) var historyCount = 0
    private(set) var cutCount = 0
    private var lastRequest: UInt32 = 0

    init(seed: UInt64, _ store: inout StoreConnection) throws {
        self.seed = seed
        var random = SeededGenerator(seed)
        windowBytes = Int.random(in: 300...3_000, using: &random)
        self.random = random
        chatSides = (0..<Self.partitions).map { _ in ChatSide() }
        userSides = []
        let start = Cursor(offset: -1, timestamp: nowMs)
        for _ in 0..<Self.partitions {
            userSides.append(UserSide(window: HotWindow(bytesMax: windowBytes, start: start)))
        }
        for _ in 0..<Self.userCount { users.append(.random(using: &self.random)) }
        for _ in 0..<Self.chatCount {
            let chat = ChatID.random(using: &self.random)
            chats.append(chat)
            joinedMs.append([:])
            try store.postgres.query("INSERT INTO chats (chat_id, kind) VALUES ($1, 'group')", [.id(chat)])
            for user in users.indices where Int.random(in: 0..<3, using: &self.random) > 0 {
                try join(user, chats.count - 1, &store)
            }
        }
        for user in users.indices {
            for _ in 0..<2 { devices.append(SyncDevice(user: user, cursor: start)) }
        }
        let keys = (0..<Self.partitions).map { PartitionKey(topic: Self.topic, partition: $0) }
        _ = try SinkWriter.positions(of: keys, partitionCount: Self.partitions, &store)
    }

    // MARK: Writing

    func step(_ store: inout StoreConnection) throws {
        nowMs += Int64.random(in: 0..<1_500, using: &random)
        if Int.random(in: 0..<60, using: &random) == 0 { nowMs += Int64.random(in: 0..<10_000_000, using: &random) }
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<30: send()
        case 30..<55: joinSome(Int.random(in: chatSides.indices, using: &random))
        case 55..<67: try storeSome(Int.random(in: chatSides.indices, using: &random), &store)
        case 67..<70: try tellHowFar(&store)
        case 70:
            try join(
                Int.random(in: users.indices, using: &random), Int.random(in: chats.indices, using: &random), &store)
        case 71: restartWindow(Int.random(in: userSides.indices, using: &random))
        default:
            let device = devices[Int.random(in: devices.indices, using: &random)]
            if device.session == nil {
                connect(device)
            } else if Int.random(in: 0..<12, using: &random) == 0 {
                disconnect(device)
            } else {
                try advance(device, &store)
            }
        }
    }

    private func send() {
        let chat = Int.random(in: chats.indices, using: &random)
        guard let sender = joinedMs[chat].keys.sorted().randomElement(using: &random) else { return }
        let side = Int(chats[chat].partition(count: Self.partitions))
        chatSides[side].seq += Int64.random(in: 1...3, using: &random)
        var message = Message(chat: chat, seq: chatSides[side].seq, ts: nowMs, sender: sender)
        if Int.random(in: 0..<10, using: &random) == 0 {
            message.target =
                (chatSides[side].messages + chatSides[side].incoming).last {
                    $0.chat == chat && $0.sender == sender && $0.target == nil
                }?.seq
        }
        chatSides[side].incoming.append(message)
    }

    private func join(_ user: Int, _ chat: Int, _ store: inout StoreConnection) throws {
        guard joinedMs[chat][user] == nil else { return }
        // What was sent before is joined before, without the newcomer.
        let side = Int(chats[chat].partition(count: Self.partitions))
        while !chatSides[side].incoming.isEmpty { joinSome(side) }
        nowMs += 1
        joinedMs[chat][user] = nowMs
        try store.postgres.query(
            "INSERT INTO members (chat_id, user_id, joined_at) VALUES ($1, $2, to_timestamp($3::bigint / 1000.0))",
            [.id(chats[chat]), .id(users[user]), .int(nowMs)])
    }

    /// The join writes each message to both of its topics, whose clocks differ and never run backwards.
    private func joinSome(_ side: Int) {
        let count = min(chatSides[side].incoming.count, Int.random(in: 1...8, using: &random))
        for _ in 0..<count {
            var message = chatSides[side].incoming.removeFirst()
            message.recordMs = max(
                chatSides[side].messages.last?.recordMs ?? 0, nowMs + Int64.random(in: 0..<800, using: &random))
            chatSides[side].messages.append(message)
            for partition in userSides.indices {
                let recipients = joinedMs[message.chat].keys.sorted().filter {
                    Int(users[$0].partition(count: Self.partitions)) == partition
                }
                if !recipients.isEmpty { deliver(message, recipients, partition) }
            }
        }
    }

    private func deliver(_ message: Message, _ recipients: [Int], _ partition: Int) {
        let last = userSides[partition].deliveries.last?.cursor
        let cursor = Cursor(
            offset: (last?.offset ?? -1) + 1,
            timestamp: max(last?.timestamp ?? 0, nowMs + Int64.random(in: 0..<800, using: &random)))
        userSides[partition].deliveries.append(Delivery(cursor: cursor, message: message, users: recipients))
        let event = Array("{\"seq\":\(message.seq)}".utf8)
        userSides[partition].window.append(cursor, kind: .message, event: event.span)
        for user in recipients { userSides[partition].window.addRecipient(user: user) }
        userSides[partition].window.trim(before: 0)
        for device in devices where recipients.contains(device.user) {
            guard device.session != nil else { continue }
            if device.session?.feed.receive(cursor, .message, message, byteCount: 1, heldBytesMax: 1 << 20) == .deliver
            {
                device.show(message, cursor)
            }
        }
    }

    /// Another worker takes the partition, and knows nothing of what was before.
    private func restartWindow(_ partition: Int) {
        guard let last = userSides[partition].deliveries.last?.cursor else { return }
        userSides[partition].window = HotWindow(bytesMax: windowBytes, start: last)
    }

    // MARK: Storing

    /// The sink stores a batch, or is killed with it.
    private func storeSome(_ number: Int, _ store: inout StoreConnection) throws {
        let side = chatSides[number]
        let from = Int(side.stored.nextOffset)
        let count = min(side.messages.count - from, Int.random(in: 1...30, using: &random))
        guard count > 0, Int.random(in: 0..<10, using: &random) > 0 else { return }
        var batch = SinkBatch()
        var position = side.stored
        for offset in from..<from + count {
            let outcome = batch.add(
                message: value(side.messages[offset]).span, partition: Int32(number), offset: Int64(offset),
                recordMs: side.messages[offset].recordMs, nowMs: nowMs, oldestMs: 0, position: &position)
            #expect(outcome == .taken)
        }
        try days.make(batch.days, &store)
        let key = PartitionKey(topic: Self.topic, partition: Int32(number))
        let step = SinkWriter.Step(from: side.stored, to: position, reachedMs: position.lastRecordMs)
        let stored = try SinkWriter.write(batch, [key: step], &store) { $0.isEmpty }
        #expect(stored == .stored)
        chatSides[number].stored = position
    }

    private func value(_ message: Message) -> [UInt8] {
        let change = message.target.map { #","kind":"edit","target":\#($0)"# } ?? #","kind":"text""#
        let id = UUID(high: seed, low: UInt64(message.chat) << 32 | UInt64(message.seq))
        return Array(
            #"{"id":"\#(id)","chat":"\#(chats[message.chat])","seq":\#(message.seq),"from":"\#(users[message.sender])","device":"\#(id)","ts":\#(message.ts)\#(change),"text":"t"}"#
                .utf8)
    }

    /// As the sink does each second: a partition whose end is stored is complete up to now.
    private func tellHowFar(_ store: inout StoreConnection) throws {
        var keys: [PartitionKey] = []
        var positions: [PartitionKey: SinkBatch.Position] = [:]
        for (number, side) in chatSides.enumerated() where side.stored.nextOffset == side.messages.count {
            let key = PartitionKey(topic: Self.topic, partition: Int32(number))
            keys.append(key)
            positions[key] = side.stored
        }
        try SinkWriter.setReached(keys, positions, reachedMs: nowMs, &store)
    }

    // MARK: Devices

    private func partition(of device: SyncDevice) -> Int { Int(users[device.user].partition(count: Self.partitions)) }

    private func connect(_ device: SyncDevice) {
        device.session = SyncDevice.Session(feed: SessionFeed(after: device.cursor))
        register(device)
    }

    private func register(_ device: SyncDevice) {
        lastRequest += 1
        device.session?.feed.register(lastRequest)
        let end = userSides[partition(of: device)].deliveries.last?.cursor ?? Cursor(offset: -1, timestamp: nowMs)
        if let step = device.session?.feed.registered(lastRequest, liveAfter: end) { take(step, device) }
    }

    private func disconnect(_ device: SyncDevice) {
        if case .history = device.session?.work { cutCount += 1 }
        device.session = nil
        // The device may not have told its last cursor to the storage that it starts from.
        if Int.random(in: 0..<4, using: &random) == 0 { device.cursor = device.earlierCursor }
        device.earlierCursor = device.cursor
    }

    private func take(_ step: SessionFeed<Message>.Step, _ device: SyncDevice) {
        switch step {
        case .nothing: device.session?.work = nil
        case .register: register(device)
        case .fill(let after, let through):
            lastRequest += 1
            device.session?.feed.asked(lastRequest)
            device.session?.work = .fill(request: lastRequest, after: after, through: through)
        case .history(let run, let from, let until):
            historyCount += 1
            device.session?.work = .history(run: run, from: from, until: until, plan: nil)
        case .live:
            device.session?.work = nil
            for held in device.session?.feed.takeHeld() ?? [] { device.show(held.payload, held.cursor) }
            if let after = device.session?.feed.after { device.cursor = after }
        }
    }

    /// One question to Delivery or to Postgres.
    private func advance(_ device: SyncDevice, _ store: inout StoreConnection) throws {
        switch device.session?.work {
        case nil: break
        case .fill(let request, let after, let through): fill(device, request, after, through)
        case .history(let run, let from, let until, let plan):
            guard var plan else {
                if let plan = try makePlan(device, from, until, &store) {
                    device.session?.work = .history(run: run, from: from, until: until, plan: plan)
                }
                return
            }
            if !plan.isFinished {
                let rows = try store.rows(plan.nextPage())
                for row in rows {
                    guard let chat = chats.firstIndex(of: row.chat) else { throw Stray() }
                    device.show(Message(chat: chat, seq: row.seq, ts: row.ts, sender: 0), from)
                }
                plan.received(rows)
                device.session?.work = .history(run: run, from: from, until: until, plan: plan)
            }
            if plan.isFinished, let step = device.session?.feed.historyServed(run) { take(step, device) }
        }
    }

    struct Stray: Error {}

    /// nil while the sink is behind.
    private func makePlan(
        _ device: SyncDevice, _ from: Cursor, _ until: Cursor, _ store: inout StoreConnection
    ) throws -> SyncPlan? {
        let coverage = try #require(try store.first(Sync.coverage(topic: Self.topic)))
        #expect(!coverage.isTooOld(cursorMs: from.timestamp), "seed \(seed)")
        guard coverage.isComplete(upToMs: until.timestamp) else { return nil }
        let bounds = try store.rows(Sync.bounds(afterMs: from.timestamp, topic: Self.topic))
        let found = try store.rows(Sync.chats(of: users[device.user], since: bounds))
        return SyncPlan(
            found, bounds: bounds, partitionCount: Int32(coverage.partitionCount),
            limit: Int.random(in: 1...9, using: &random))
    }

    private func fill(_ device: SyncDevice, _ request: UInt32, _ after: Cursor, _ through: Int64) {
        let side = userSides[partition(of: device)]
        let answer = side.window.fill(
            user: device.user, largeChats: [], after: after, through: through,
            bytesMax: Int.random(in: 1...200, using: &random)
        ) { offset, _, _ in
            guard device.session?.feed.receive(filled: offset, by: request) == .deliver else { return }
            let delivery = side.deliveries[Int(offset)]
            device.show(delivery.message, delivery.cursor)
        }
        switch answer {
        case .served(let upTo, let isLast):
            if let step = device.session?.feed.receive(pageUpTo: upTo, isLast: isLast, by: request) {
                take(step, device)
            }
        case .refused(let refusal):
            let start = side.window.start
            if let step = device.session?.feed.receive(cannotFill: refusal, windowStart: start, by: request) {
                take(step, device)
            }
        }
    }

    // MARK: The end

    /// Everything arrives, and every device comes back and stays.
    func settle(_ store: inout StoreConnection) throws {
        nowMs += 20_000
        for side in chatSides.indices {
            while !chatSides[side].incoming.isEmpty { joinSome(side) }
            while chatSides[side].stored.nextOffset < chatSides[side].messages.count { try storeSome(side, &store) }
        }
        nowMs += 20_000
        try tellHowFar(&store)
        for device in devices {
            if device.session == nil { connect(device) }
            while device.session?.work != nil { try advance(device, &store) }
        }
    }

    func check() {
        for device in devices {
            #expect(device.session?.feed.isLive == true, "seed \(seed)")
            for chat in chats.indices {
                let since = joinedMs[chat][device.user] ?? .max
                let side = Int(chats[chat].partition(count: Self.partitions))
                let owed = chatSides[side].messages.filter { $0.chat == chat && $0.ts >= since }.map(\.seq)
                #expect(device.shown[chat] ?? [] == owed, "seed \(seed)")
            }
        }
    }
}

/// One device as a person holds it.
final class SyncDevice {
    enum Work {
        case fill(request: UInt32, after: Cursor, through: Int64)
        /// Without a plan while the sink is behind.
        case history(run: UInt32, from: Cursor, until: Cursor, plan: SyncPlan?)
    }

    struct Session {
        var feed: SessionFeed<SyncWorld.Message>
        var work: Work?
    }

    let user: Int
    var session: Session?
    var cursor: Cursor
    var earlierCursor: Cursor
    /// What it has shown of each chat, in the order in which it did.
    private(set) var shown: [Int: [Int64]] = [:]

    init(user: Int, cursor: Cursor) {
        self.user = user
        self.cursor = cursor
        earlierCursor = cursor
    }

    /// Drops what is not above the highest seq of its chat, as docs/protocol.md asks of clients.
    func show(_ message: SyncWorld.Message, _ cursor: Cursor) {
        self.cursor = cursor
        if message.seq > shown[message.chat]?.last ?? -1 { shown[message.chat, default: []].append(message.seq) }
    }
}
