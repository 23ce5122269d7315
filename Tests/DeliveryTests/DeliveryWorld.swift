import Delivery
import PushLink
import TestSupport
import Testing
import Wire

/// Workers, chat servers, devices and the log on one thread, from one seed. Whatever is cut, killed, moved or repeated,
/// in the end each device has been shown each of its user's events once and in the order of the log.
final class DeliveryWorld {
    struct Record {
        var value: [UInt8]
        var source: [UInt8]
        var cursor: Cursor
        var users: Set<Int>
        var chat: Int?
        var device: DeviceID?
        var isRepeat = false
        /// A large chat that the record's user enters or leaves.
        var move: (chat: Int, isMember: Bool)?
    }

    /// Postgres told a change before the log had: until it has, either is right.
    struct Uncertain {
        let user: Int
        let chat: Int
        let offsets: ClosedRange<Int64>
    }

    struct Wire {
        var toInstance: [UInt8] = []
        var toWorker: [UInt8] = []
        let worker: Int
        let life: Int
        let number: Int
        let instance: Int
    }

    final class Member {
        var worker: DeliveryWorker
        let life: Int
        var position: [Int32: Int64] = [:]
        var notYet: Set<Int32> = []

        init(_ worker: DeliveryWorker, life: Int) {
            self.worker = worker
            self.life = life
        }
    }

    static let chatCount = 3
    let users: [UserID]
    let partitionCount: Int32
    /// Writes records of its own; else they come from a join (`write`).
    var writesItself = true
    /// A fault for the check to find: workers are not told where a record comes from, and take repeats for new.
    var hidesSources = false
    private static let secret = LinkSecret { message in
        var hash: UInt64 = 99
        for byte in message { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return (0..<32).map { UInt8(truncatingIfNeeded: hash >> UInt64($0 % 8 * 8)) }
    }

    var random: SplitMix
    var nowMs: Int64 = 1_000_000
    var log: [Int32: [Record]] = [:]
    /// What the group has committed, and who it has given each partition to.
    var committed: [Int32: (offset: Int64, note: CommitNote)] = [:]
    var owner: [Int32: (member: Int, life: Int)] = [:]
    var members: [Int: Member] = [:]
    var servers: [Int: ModelChatServer] = [:]
    var wires: [Int: Wire] = [:]
    var devices: [ModelDevice] = []
    /// Which server and session each device is at.
    var places: [Int: (server: Int, number: SessionNumber)] = [:]
    var nextWire = 1
    var nextLife = 1
    var nextSource: Int64 = 0
    var windowBytes: Int
    /// Who is in each large chat as the log has it.
    var members_: [Int: Set<Int>] = [:]
    var uncertain: [Uncertain] = []

    let seed: UInt64

    init(seed: UInt64, users: [UserID] = (0..<12).map { user($0) }, partitionCount: Int32 = 2) {
        self.seed = seed
        self.users = users
        self.partitionCount = partitionCount
        random = SplitMix(seed: seed)
        windowBytes = random.chance(50) ? 1 << 20 : 6_000
        for chat in 0..<Self.chatCount { members_[chat] = Set((0..<users.count).filter { _ in random.chance(40) }) }
        for partition in 0..<partitionCount {
            log[partition] = []
            committed[partition] = (0, CommitNote(term: 0))
        }
        for number in 0..<2 { startMember(number) }
        for number in 0..<3 { startServer(number) }
        for number in 0..<users.count * 2 {
            devices.append(ModelDevice(user: users[number % users.count], device: DeliveryTests.device(number)))
        }
        for partition in 0..<partitionCount { assign(partition, to: 0) }
    }

    // MARK: Life

    func startMember(_ number: Int) {
        nextLife += 1
        var settings = DeliverySettings(
            identity: LinkIdentity(name: "worker-\(number)", epoch: UInt64(nextLife)), secret: Self.secret,
            partitionCount: partitionCount)
        settings.windowBytesMax = windowBytes
        settings.hearingMs = 500
        settings.silentMs = 2_000
        settings.unreachableMs = 4_000
        settings.presenceGraceMs = 1_000
        // Small, so that some are left behind and some given up.
        settings.linkBytesMax = 2_000
        members[number] = Member(DeliveryWorker(settings), life: nextLife)
        for (_, server) in servers.inOrder {
            members[number]?.worker.announced(server.identity, address: server.identity.name, nowMs: nowMs)
        }
        members[number]?.worker.directoryRead(nowMs: nowMs)
    }

    func startServer(_ number: Int) {
        nextLife += 1
        let server = ModelChatServer(LinkIdentity(name: "\(number)", epoch: UInt64(nextLife)), Self.secret)
        server.fillBytes = random.chance(50) ? 300 : 65_536
        server.heldBytesMax = random.chance(50) ? 400 : 1 << 20
        server.history = { [unowned self] device, from, until in
            events(of: device, after: from.offset, through: until.offset)
        }
        server.answersAtOnce = false
        server.largeChats = { [unowned self] id in largeChats(of: id) }
        servers[number] = server
        for (_, member) in members.inOrder {
            member.worker.announced(server.identity, address: "\(number)", nowMs: nowMs)
        }
    }

    func killMember(_ number: Int) {
        guard let member = members.removeValue(forKey: number) else { return }
        for (id, wire) in wires.inOrder where wire.worker == number && wire.life == member.life { cut(id) }
        startMember(number)
        for (partition, held) in owner.inOrder where held.member == number && held.life == member.life {
            assign(partition, to: random.below(2))
        }
    }

    func killServer(_ number: Int) {
        for (id, wire) in wires.inOrder where wire.instance == number { cut(id) }
        for (device, place) in places.inOrder where place.server == number { hangUp(device, at: nil) }
        startServer(number)
    }

    /// The connection is gone, with whatever was in it.
    func cut(_ id: Int) {
        guard let wire = wires.removeValue(forKey: id) else { return }
        servers[wire.instance]?.lose(id)
        if let member = members[wire.worker], member.life == wire.life {
            member.worker.linkEnded(wire.number, nowMs: nowMs)
        }
    }

    // MARK: The group

    func assign(_ partition: Int32, to number: Int) {
        guard let member = members[number], let saved = committed[partition] else { return }
        if member.worker.owned.contains(partition) { member.worker.disown(partition) }
        let note = CommitNote(term: saved.note.term + 1, dedupe: saved.note.dedupe, at: saved.note.at)
        committed[partition] = (saved.offset, note)
        owner[partition] = (number, member.life)
        let remembersFrom = max(0, saved.offset - Int64(random.below(60)))
        let readsFrom = max(0, remembersFrom - 40)
        member.position[partition] = readsFrom
        member.notYet.remove(partition)
        member.worker.own(
            partition, term: note.term, readsFrom: readsFrom, remembersFrom: remembersFrom, liveFrom: saved.offset,
            knownEnd: Int64(log[partition]?.count ?? 0), saved: note.saved, nowMs: nowMs)
    }

    /// Commits what a member may, unless the group has given the partition to another.
    func commit(_ number: Int) {
        guard let member = members[number] else { return }
        for position in member.worker.commitPositions() {
            guard let held = owner[position.partition], held.member == number, held.life == member.life else {
                continue
            }
            #expect(position.offset >= committed[position.partition]?.offset ?? 0)
            committed[position.partition] = (position.offset, CommitNote(text: position.note.text))
        }
    }

    func move(_ partition: Int32) {
        guard let held = owner[partition] else { return }
        let to = random.below(2)
        if members[held.member]?.life == held.life {
            if random.chance(70) { commit(held.member) }
            // Now and then the old owner does not hear of it for a while.
            if to == held.member || random.chance(70) { members[held.member]?.worker.disown(partition) }
        }
        assign(partition, to: to)
    }

    /// Those who slept through a rebalance notice.
    func settleOwnership() {
        for (number, member) in members.inOrder {
            for partition in member.worker.owned
            where owner[partition]?.member != number || owner[partition]?.life != member.life {
                member.worker.disown(partition)
            }
        }
    }

    // MARK: The log

    /// As Postgres has them: ahead of what has been read of the log, and perhaps behind it when the session is named.
    func largeChats(of id: UserID) -> [ChatID] {
        let partition = id.partition(count: partitionCount)
        let read =
            members.values.compactMap { $0.worker.routed(partition)?.offset } + [committed[partition]?.offset ?? 0]
        let from = max(0, read.min() ?? 0)
        for record in log[partition] ?? [] where record.cursor.offset >= from {
            guard let move = record.move, let who = record.users.first, users[who] == id else { continue }
            uncertain.append(Uncertain(user: who, chat: move.chat, offsets: 0...record.cursor.offset))
        }
        return (0..<Self.chatCount).filter { members_[$0]?.contains { users[$0] == id } == true }.map { chat($0) }
    }

    /// Somebody joins a large chat or leaves one.
    private func changeMembership() {
        let (chosen, who) = (random.below(Self.chatCount), random.below(users.count))
        let isMember = members_[chosen]?.remove(who) == nil
        if isMember { members_[chosen]?.insert(who) }
        let move = #""\#(isMember ? "enter" : "leave")":"\#(chat(chosen))""#
        let partition = users[who].partition(count: partitionCount)
        nextSource += 1
        let cursor = Cursor(offset: Int64(log[partition]?.count ?? 0), timestamp: nowMs)
        let value = #"{"to":["\#(users[who])"],\#(move),"event":{"type":"member","n":\#(nextSource)}}"#
        log[partition]?.append(
            Record(
                value: Array(value.utf8), source: Array("chat.incoming/0/\(nextSource)".utf8), cursor: cursor,
                users: [who], move: (chosen, isMember)))
    }

    /// A record of somebody else's making, the first from its source or a repeat.
    func write(_ value: [UInt8], source: String, isRepeat: Bool, to partition: Int32) throws {
        let record = try DeliveryRecord(decoding: value.span)
        var to: Set<UserID> = []
        if case .users(let list) = record.recipients {
            try DeliveryRecord.forEachUser(in: list, of: value.span) { to.insert($0) }
        }
        log[partition, default: []].append(
            Record(
                value: value, source: Array(source.utf8),
                cursor: Cursor(offset: Int64(log[partition]?.count ?? 0), timestamp: nowMs),
                users: Set(users.indices.filter { to.contains(users[$0]) }), device: record.device,
                isRepeat: isRepeat))
    }

    func append() {
        if random.chance(8) { return changeMembership() }
        let partition = Int32(random.below(Int(partitionCount)))
        let offset = Int64(log[partition]?.count ?? 0)
        let cursor = Cursor(offset: offset, timestamp: nowMs)
        if random.chance(10), let old = log[partition]?.suffix(40).randomElement(using: &random), !old.source.isEmpty {
            // The writer has started again and repeats itself.
            var record = old
            record.cursor = cursor
            record.isRepeat = true
            log[partition]?.append(record)
            return
        }
        let here = (0..<users.count).filter { users[$0].partition(count: partitionCount) == partition }
        nextSource += 1
        let event = #"{"type":"message","chat":"\#(chat(1))","from":"\#(user(99))","n":\#(nextSource)}"#
        var record = Record(
            value: [], source: Array("chat.incoming/\(random.below(1))/\(nextSource)".utf8), cursor: cursor, users: [])
        if random.chance(20) {
            let chosen = random.below(Self.chatCount)
            record.chat = chosen
            record.users = members_[chosen]?.intersection(here) ?? []
            record.value = Array(#"{"chat":"\#(chat(chosen))","event":\#(event)}"#.utf8)
        } else {
            record.users = Set(here.filter { _ in random.chance(40) })
            let list = record.users.sorted().map { "\"\(users[$0])\"" }.joined(separator: ",")
            if random.chance(5), let one = record.users.min() {
                record.users = [one]
                record.device = DeliveryTests.device(one)
                record.value = Array(
                    #"{"to":["\#(users[one])"],"device":"\#(DeliveryTests.device(one))","event":\#(event)}"#.utf8)
            } else if random.chance(2) {
                record.users = []
                record.value = Array("not a record".utf8)
            } else {
                record.value = Array(#"{"to":[\#(list)],"event":\#(event)}"#.utf8)
            }
        }
        log[partition]?.append(record)
    }

    func events(of device: ModelDevice, after: Int64, through: Int64) -> [Cursor] {
        let partition = device.user.partition(count: partitionCount)
        return (log[partition] ?? []).filter { record in
            !record.isRepeat && record.cursor.offset > after && record.cursor.offset <= through
                && record.users.contains { users[$0] == device.user }
                && (record.device == nil || record.device == device.device)
        }.map(\.cursor)
    }

    func read(_ number: Int) {
        guard let member = members[number] else { return }
        for partition in member.worker.owned {
            for _ in 0..<1 + random.below(8) {
                guard let position = member.position[partition], let records = log[partition],
                    !member.worker.isBlocked
                else { break }
                guard position < Int64(records.count) else {
                    member.worker.reachedEnd(of: partition, nextOffset: position, nowMs: nowMs)
                    break
                }
                let record = records[Int(position)]
                let taken = member.worker.take(
                    partition, record.cursor, value: record.value.span,
                    source: hidesSources ? nil : record.source.span, nowMs: nowMs)
                guard taken == .taken else { break }
                member.position[partition] = position + 1
            }
        }
        carryOut(number)
    }

    // MARK: The wires

    func carryOut(_ number: Int) {
        guard let member = members[number] else { return }
        for action in member.worker.takeActions() {
            switch action {
            case .connect(let instance, let address):
                guard let server = Int(address), random.chance(90) else {
                    member.worker.linkEnded(instance, nowMs: nowMs)
                    continue
                }
                drop(number, member.life, instance)
                let wire = Wire(worker: number, life: member.life, number: instance, instance: server)
                wires[nextWire] = wire
                servers[server]?.accept(nextWire, nowMs: nowMs)
                nextWire += 1
                member.worker.linkConnected(
                    instance, nonce: [UInt8](repeating: UInt8(truncatingIfNeeded: nextWire), count: 32), nowMs: nowMs)
            case .disconnect(let instance, _): drop(number, member.life, instance)
            case .raiseTerm(let partition, let term):
                guard let held = owner[partition], held.member == number, held.life == member.life,
                    let saved = committed[partition]
                else { continue }
                committed[partition] = (saved.offset, CommitNote(term: term))
                member.worker.raiseTerm(of: partition, to: term)
            case .askEnd(let partition): member.worker.logEnds(partition, at: Int64(log[partition]?.count ?? 0))
            case .resume, .lookUp: break
            }
        }
        _ = member.worker.takePresence()
        for (tag, _) in member.worker.takeRejected() { member.worker.outputDone(tag) }
        for (tag, _) in member.worker.takePushes(nowMs: nowMs, limit: 100) { member.worker.outputDone(tag) }
        for (id, wire) in wires.inOrder where wire.worker == number && wire.life == member.life {
            member.worker.serveFills(wire.number, room: 2_000)
            wires[id]?.toInstance += member.worker.takeOutput(wire.number, nowMs: nowMs)
        }
    }

    /// A worker has one connection to an instance at most.
    private func drop(_ number: Int, _ life: Int, _ instance: Int) {
        for (id, wire) in wires.inOrder where wire.worker == number && wire.life == life && wire.number == instance {
            wires[id] = nil
            servers[wire.instance]?.lose(id)
        }
    }

    /// Some of what waits in a wire arrives.
    func carry(_ id: Int, all: Bool = false) {
        guard let wire = wires[id] else { return }
        if !wire.toInstance.isEmpty {
            let count = all ? wire.toInstance.count : 1 + random.below(wire.toInstance.count)
            wires[id]?.toInstance.removeFirst(count)
            servers[wire.instance]?.receive(id, Array(wire.toInstance.prefix(count)), nowMs: nowMs)
        }
        let answer = servers[wire.instance]?.takeOutput(id, nowMs: nowMs) ?? []
        wires[id]?.toWorker += answer
        if let waiting = wires[id]?.toWorker, !waiting.isEmpty, let member = members[wire.worker],
            member.life == wire.life
        {
            let count = all ? waiting.count : 1 + random.below(waiting.count)
            wires[id]?.toWorker.removeFirst(count)
            let bytes = Array(waiting.prefix(count))
            let error = member.worker.linkReceived(wire.number, bytes.span, nowMs: nowMs)
            #expect(
                error == nil || error?.code == .closedByPeer || error?.code == .silent, "\(String(describing: error))")
            carryOut(wire.worker)
        }
        for failure in servers[wire.instance]?.failed ?? [] {
            #expect(
                failure.error.code == .silent || failure.error.code == .closedByPeer,
                "seed \(seed): \(failure.error)")
            cut(failure.link)
        }
        servers[wire.instance]?.failed = []
    }

    // MARK: Devices

    func pickUp(_ index: Int) {
        let server = random.below(servers.count)
        guard let number = servers[server]?.open(devices[index]) else { return }
        places[index] = (server, number)
    }

    /// The device goes away; the last frames may not have reached it.
    func hangUp(_ index: Int, at server: ModelChatServer?) {
        guard let place = places.removeValue(forKey: index) else { return }
        server?.close(place.number)
        let device = devices[index]
        let lost = min(device.seen.count, random.below(3))
        guard lost > 0, device.seen.count > lost else { return }
        device.seen.removeLast(lost)
        device.cursor = device.seen.last?.cursor
    }

    func step() {
        nowMs += Int64(random.below(20))
        switch random.below(100) {
        case 0..<25: if writesItself { append() }
        case 25..<50: read(random.below(2))
        case 50..<80: if let id = wires.keys.sorted().randomElement(using: &random) { carry(id) }
        case 80..<88:
            let index = random.below(devices.count)
            if let place = places[index] { hangUp(index, at: servers[place.server]) } else { pickUp(index) }
        case 88..<92: commit(random.below(2))
        case 92..<95: tick()
        case 95: servers[random.below(servers.count)]?.answerQuestions()
        case 96: move(Int32(random.below(Int(partitionCount))))
        case 97: if let id = wires.keys.sorted().randomElement(using: &random) { cut(id) }
        case 98: random.chance(30) ? killMember(random.below(2)) : settleOwnership()
        default: if random.chance(30) { killServer(random.below(servers.count)) }
        }
    }

    func tick() {
        for (_, server) in servers.inOrder {
            server.tick(nowMs: nowMs)
            server.answerQuestions()
        }
        for number in members.keys.sorted() {
            for (_, server) in servers.inOrder {
                members[number]?.worker.announced(server.identity, address: server.identity.name, nowMs: nowMs)
            }
            members[number]?.worker.tick(nowMs: nowMs)
            carryOut(number)
        }
        for id in wires.keys.sorted() { carry(id, all: true) }
    }

    /// Everybody stays, nothing fails any more, and what is under way arrives.
    func settle() {
        settleOwnership()
        for index in devices.indices where places[index] == nil { pickUp(index) }
        for _ in 0..<400 {
            nowMs += 50
            tick()
            for number in 0..<2 { read(number) }
            commit(0)
            commit(1)
            if isSettled { return }
        }
    }

    /// All is committed, which is when it has been acknowledged, and no device waits for what it missed.
    private var isSettled: Bool {
        log.allSatisfy { committed[$0.key]?.offset == Int64($0.value.count) } && servers.values.allSatisfy(\.isLive)
    }

    func check(_ seed: UInt64) {
        for partition in 0..<partitionCount {
            #expect(
                committed[partition]?.offset == Int64(log[partition]?.count ?? 0), "seed \(seed): committed to the end")
        }
        for server in servers.values { #expect(server.isLive, "seed \(seed)") }
        for device in devices {
            let partition = device.user.partition(count: partitionCount)
            let end = Int64(log[partition]?.count ?? 0)
            func isCertain(_ offset: Int64) -> Bool {
                guard let chat = log[partition]?[Int(offset)].chat else { return true }
                return !uncertain.contains {
                    $0.chat == chat && users[$0.user] == device.user && $0.offsets.contains(offset)
                }
            }
            let expected = events(of: device, after: device.start?.offset ?? -1, through: end).map(\.offset)
                .filter(isCertain)
            #expect(device.start != nil, "seed \(seed)")
            let seen = device.seen.map(\.offset).filter(isCertain)
            guard seen != expected else { continue }
            let missing = expected.filter { !seen.contains($0) }
            let extra = Set(seen).subtracting(expected).sorted()
            let again = Set(seen.filter { offset in seen.filter { $0 == offset }.count > 1 }).sorted()
            let disorder = zip(seen, seen.dropFirst()).first { $0 >= $1 }
            Issue.record(
                "seed \(seed): \(device.device) of \(device.user): missing \(missing) extra \(extra) again \(again) \(String(describing: disorder))"
            )
        }
    }
}
