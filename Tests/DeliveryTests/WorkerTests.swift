import Delivery
import PushLink
import Testing
import Wire

/// One worker with one partition and a few chat servers, whose frames arrive when the test says so.
private final class Scene {
    let worker: DeliveryWorker
    var servers: [ModelChatServer] = []
    var nowMs: Int64 = 1_000_000
    private var offset: Int64 = 0

    init(servers count: Int, _ change: (inout DeliverySettings) -> Void = { _ in }) {
        let secret = LinkSecret { message in [UInt8](repeating: UInt8(truncatingIfNeeded: message.count), count: 32) }
        var settings = DeliverySettings(
            identity: LinkIdentity(name: "worker", epoch: 1), secret: secret, partitionCount: 1)
        change(&settings)
        worker = DeliveryWorker(settings)
        for number in 0..<count {
            servers.append(ModelChatServer(LinkIdentity(name: "\(number)", epoch: 1), secret))
            worker.announced(LinkIdentity(name: "\(number)", epoch: 1), address: "", nowMs: nowMs)
            connect(number)
        }
        worker.directoryRead(nowMs: nowMs)
        worker.own(
            0, term: 1, readsFrom: 0, remembersFrom: 0, liveFrom: 0, knownEnd: 0, saved: nil, nowMs: nowMs)
        for number in servers.indices { exchange(number) }
    }

    /// Another chat server announces itself; no link to it is made.
    func add(workers: [String] = []) -> Int {
        let identity = LinkIdentity(name: "\(servers.count)", epoch: 1)
        servers.append(ModelChatServer(identity, worker.settings.secret))
        announce(servers.count - 1, workers: workers)
        return servers.count - 1
    }

    func announce(_ number: Int, workers: [String] = []) {
        worker.announced(servers[number].identity, address: "here", workers: workers, nowMs: nowMs)
    }

    func connect(_ number: Int) {
        _ = worker.takeActions()
        servers[number].accept(number, nowMs: nowMs)
        worker.linkConnected(number, nonce: [UInt8](repeating: 1, count: 32), nowMs: nowMs)
        exchange(number)
    }

    /// Its sessions are gone with it.
    func restart(_ number: Int) {
        let identity = servers[number].identity
        servers[number] = ModelChatServer(
            LinkIdentity(name: identity.name, epoch: identity.epoch + 1), servers[number].secret)
    }

    /// What is under way between the worker and one server arrives.
    func exchange(_ number: Int) {
        for _ in 0..<20 {
            worker.serveFills(number, room: 1 << 20)
            servers[number].receive(number, worker.takeOutput(number, nowMs: nowMs), nowMs: nowMs)
            let answer = servers[number].takeOutput(number, nowMs: nowMs)
            #expect(worker.linkReceived(number, answer.span, nowMs: nowMs) == nil)
        }
    }

    @discardableResult
    func write(_ value: String) -> DeliveryWorker.Taken {
        defer { offset += 1 }
        return worker.take(
            0, Cursor(offset: offset, timestamp: nowMs), value: Array(value.utf8).span, source: nil, nowMs: nowMs)
    }

    func message(to user: UserID, bytes: Int = 10) {
        let text = String(repeating: "x", count: bytes)
        write(
            #"{"to":["\#(user)"],"event":{"type":"message","chat":"\#(chat(1))","from":"\#(DeliveryTests.user(99))","kind":"text","text":"\#(text)"}}"#
        )
    }

    func tick(afterMs: Int64) {
        nowMs += afterMs
        worker.tick(nowMs: nowMs)
    }
}

struct WorkerTests {
    private static func enter(_ number: Int, _ chosen: Int) -> String {
        #"{"to":["\#(user(number))"],"enter":"\#(chat(chosen))","event":{"type":"member"}}"#
    }
    private static func leave(_ number: Int, _ chosen: Int) -> String {
        #"{"to":["\#(user(number))"],"leave":"\#(chat(chosen))","event":{"type":"member"}}"#
    }
    private static func toChat(_ chosen: Int) -> String {
        #"{"chat":"\#(chat(chosen))","event":{"type":"message","kind":"text"}}"#
    }

    // MARK: - Taking over

    @Test func `a device that opens a session on another chat server ends the one that it had`() {
        let scene = Scene(servers: 2)
        let device = ModelDevice(user: user(1), device: device(1))
        scene.servers[0].open(device)
        scene.exchange(0)
        scene.servers[1].open(device)
        scene.exchange(1)
        scene.exchange(0)
        #expect(scene.servers[0].takenOver == [device.device] && scene.servers[0].sessions.isEmpty)
        #expect(scene.servers[1].takenOver.isEmpty && scene.servers[1].sessions.count == 1)
        scene.message(to: user(1))
        for number in [0, 1] { scene.exchange(number) }
        #expect(device.seen.map(\.offset) == [0])
    }

    @Test func `the older session ends when it is named last, too, and may have ended by itself`() {
        let scene = Scene(servers: 2)
        let device = ModelDevice(user: user(1), device: device(1))
        scene.servers[0].open(device)
        let second = scene.servers[1].open(device)
        scene.exchange(1)
        scene.exchange(0)
        #expect(scene.servers[0].takenOver == [device.device] && scene.servers[0].sessions.isEmpty)
        #expect(scene.servers[1].sessions.count == 1 && scene.servers[1].isLive)
        // The device goes back, and what it left closes before it is told to.
        scene.servers[0].open(device)
        scene.exchange(0)
        scene.servers[1].close(second)
        scene.exchange(1)
        #expect(scene.servers[1].takenOver.isEmpty && scene.servers[0].sessions.count == 1)
        scene.message(to: user(1))
        for number in [0, 1] { scene.exchange(number) }
        #expect(device.seen.map(\.offset) == [0])
    }

    // MARK: - Large chats

    @Test func `a large chat that is joined while the session is being named does not pass it by`() {
        let scene = Scene(servers: 1)
        scene.servers[0].answersAtOnce = false
        let device = ModelDevice(user: user(1), device: device(1))
        scene.servers[0].open(device)
        // Postgres has answered, and the user joins before the session's name arrives.
        scene.servers[0].answerQuestions()
        scene.write(Self.enter(1, 5))
        scene.exchange(0)
        scene.write(Self.toChat(5))
        scene.exchange(0)
        #expect(device.seen.map(\.offset) == [1])
    }

    @Test func `one that is left meanwhile is not told to it`() {
        let scene = Scene(servers: 1)
        scene.servers[0].answersAtOnce = false
        scene.servers[0].largeChats = { _ in [chat(5), chat(6)] }
        let device = ModelDevice(user: user(1), device: device(1))
        scene.servers[0].open(device)
        scene.servers[0].answerQuestions()
        scene.write(Self.leave(1, 5))
        scene.exchange(0)
        scene.write(Self.toChat(5))
        scene.write(Self.toChat(6))
        scene.exchange(0)
        #expect(device.seen.map(\.offset) == [2])
    }

    @Test func `who joined and left while away gets what was said while they were in, and nothing else`() {
        let scene = Scene(servers: 1)
        let device = ModelDevice(user: user(1), device: device(1))
        let first = scene.servers[0].open(device)
        scene.exchange(0)
        scene.servers[0].close(first)
        scene.exchange(0)
        for record in [
            Self.toChat(5), Self.enter(1, 5), Self.toChat(5), Self.leave(1, 5), Self.toChat(5), Self.enter(1, 5),
            Self.toChat(5),
        ] { scene.write(record) }
        scene.servers[0].largeChats = { _ in [chat(5)] }
        scene.servers[0].open(device)
        scene.exchange(0)
        #expect(device.seen.map(\.offset) == [1, 2, 3, 5, 6])
    }

    @Test func `a session of before goes on in the chats that the log has told since, at whoever owns it next`() {
        let scene = Scene(servers: 1)
        let device = ModelDevice(user: user(1), device: device(1))
        scene.servers[0].open(device)
        scene.exchange(0)
        scene.servers[0].lose(0)
        scene.worker.linkEnded(0, nowMs: scene.nowMs)
        scene.write(Self.enter(1, 5))
        scene.write(Self.toChat(5))
        scene.tick(afterMs: 100)
        scene.connect(0)
        scene.write(Self.toChat(5))
        scene.exchange(0)
        #expect(device.seen.map(\.offset) == [0, 1, 2])
    }

    // MARK: - People who are offline

    private func pushes(_ scene: Scene) -> [ChatID: Int] {
        var counts: [ChatID: Int] = [:]
        for (tag, entry) in scene.worker.takePushes(nowMs: scene.nowMs, limit: 1_000) {
            counts[entry.chat, default: 0] += entry.count
            scene.worker.outputDone(tag)
        }
        return counts
    }

    @Test func `what a chat server had not acknowledged when it died is told by pushes once it is given up`() {
        let scene = Scene(servers: 2) { $0.pushWindowMs = 0 }
        scene.servers[0].largeChats = { _ in [chat(5)] }
        scene.servers[0].open(ModelDevice(user: user(1), device: device(1)))
        // Somebody who is also elsewhere needs no push.
        scene.servers[0].open(ModelDevice(user: user(2), device: device(2)))
        scene.servers[1].open(ModelDevice(user: user(2), device: device(3)))
        for number in 0..<2 { scene.exchange(number) }
        scene.message(to: user(1))
        scene.exchange(0)
        // On its way when the connection breaks, and after it has.
        scene.message(to: user(1))
        let lostMs = scene.nowMs
        scene.servers[0].lose(0)
        scene.worker.linkEnded(0, nowMs: scene.nowMs)
        scene.message(to: user(1))
        scene.message(to: user(2))
        let event = #"{"type":"message","chat":"\#(chat(5))","from":"\#(user(99))","kind":"text"}"#
        scene.write(#"{"chat":"\#(chat(5))","event":\#(event)}"#)
        #expect(pushes(scene).isEmpty, "it may come back")
        #expect(scene.worker.commitPositions().first?.offset == 1)
        for _ in 0..<scene.worker.settings.unreachableMs / 1_000 {
            scene.tick(afterMs: 1_000)
            scene.servers[1].tick(nowMs: scene.nowMs)
            scene.exchange(1)
        }
        #expect(scene.worker.counts.droppedInstances == 1)
        // Seen when the link broke, and no later: what came since has not reached them.
        scene.tick(afterMs: scene.worker.settings.presenceGraceMs)
        let gone = scene.worker.takePresence().last { $0.user == user(1) }
        #expect(gone?.status == .offline && gone?.lastSeen == lostMs)
        #expect(pushes(scene) == [chat(1): 2, chat(5): 1])
    }

    @Test func `they are told as well when the window has moved on before it is given up`() {
        let scene = Scene(servers: 1) {
            $0.windowBytesMax = 3_000
            $0.pushWindowMs = 0
        }
        scene.servers[0].open(ModelDevice(user: user(1), device: device(1)))
        scene.exchange(0)
        scene.servers[0].lose(0)
        scene.worker.linkEnded(0, nowMs: scene.nowMs)
        for _ in 0..<50 { scene.message(to: user(1), bytes: 500) }
        scene.tick(afterMs: scene.worker.settings.unreachableMs)
        #expect(pushes(scene) == [chat(1): 50])
        #expect(scene.worker.commitPositions().first?.offset == 50)
    }

    @Test(arguments: [false, true])
    func `whoever is not on a chat server any more when its link is back was seen when it was lost`(isRestarted: Bool) {
        let scene = Scene(servers: 1) { $0.presenceGraceMs = 10 }
        let session = scene.servers[0].open(ModelDevice(user: user(1), device: device(1)))
        scene.exchange(0)
        scene.tick(afterMs: 10)
        #expect(scene.worker.takePresence().map(\.status) == [.online])
        let lostMs = scene.nowMs
        scene.servers[0].lose(0)
        scene.worker.linkEnded(0, nowMs: scene.nowMs)
        // Its announcement may come later than the link.
        if isRestarted { scene.restart(0) } else { scene.servers[0].close(session) }
        scene.tick(afterMs: 2_000)
        scene.connect(0)
        scene.tick(afterMs: 10)
        let gone = scene.worker.takePresence()
        #expect(gone == [PresenceNotice(user: user(1), status: .offline, lastSeen: lostMs)])
    }

    @Test func `nobody is told by a push who may be on a chat server that has not said who is there`() {
        let scene = Scene(servers: 1) { $0.pushWindowMs = 0 }
        let late = scene.add()
        for number in 1...2 { scene.message(to: user(number)) }
        scene.tick(afterMs: 100)
        #expect(pushes(scene).isEmpty)
        #expect(scene.worker.heldPushCount == 2)
        #expect(scene.worker.commitPositions().first?.offset == 0, "whoever is next must know of them")
        let device = ModelDevice(user: user(1), device: device(1))
        device.cursor = .start
        scene.servers[late].open(device)
        scene.connect(late)
        #expect(device.seen.map(\.offset) == [0])
        #expect(pushes(scene) == [chat(1): 1], "only for the one who has no session anywhere")
        #expect(scene.worker.commitPositions().first?.offset == 2)
    }

    @Test func `one that cannot be reached is given up in the end, but by nobody who reaches none`() {
        let scene = Scene(servers: 1) { $0.pushWindowMs = 0 }
        let away = scene.add()
        func pass(_ ms: Int64) {
            for _ in 0..<ms / 1_000 {
                scene.tick(afterMs: 1_000)
                for number in scene.servers.indices { scene.announce(number) }
                scene.servers[0].tick(nowMs: scene.nowMs)
                if scene.worker.isLinkOpen(0) { scene.exchange(0) }
            }
        }
        scene.worker.linkEnded(away, reason: "no route", nowMs: scene.nowMs)
        scene.message(to: user(1))
        pass(scene.worker.settings.unreachableMs - 1_000)
        #expect(pushes(scene).isEmpty && scene.worker.counts.droppedInstances == 0)
        pass(1_000)
        #expect(pushes(scene) == [chat(1): 1] && scene.worker.counts.droppedInstances == 1)
        // The other one is lost as well: now nothing is known of anybody.
        scene.servers[0].lose(0)
        scene.worker.linkEnded(0, reason: "no route", nowMs: scene.nowMs)
        pass(scene.worker.settings.silentMs)
        scene.message(to: user(1))
        pass(2 * scene.worker.settings.unreachableMs)
        #expect(pushes(scene).isEmpty && scene.worker.counts.droppedInstances == 1)
        #expect(scene.worker.commitPositions().first?.offset == 1)
    }

    @Test func `a worker sees that another reaches more chat servers than it does`() {
        let scene = Scene(servers: 1)
        let away = scene.add(workers: ["other", "worker"])
        scene.worker.linkEnded(away, reason: "no route", nowMs: scene.nowMs)
        var reach = scene.worker.reach(nowMs: scene.nowMs)
        #expect(reach.reachedCount == 1 && !reach.isLessThanOthers, "as many, though not the same")
        scene.announce(0, workers: ["other", "worker"])
        reach = scene.worker.reach(nowMs: scene.nowMs)
        #expect(reach.isLessThanOthers)
        #expect(
            reach.trouble
                == "cannot reach chat server 1 at here: no route; other workers reach more chat servers")
        scene.tick(afterMs: 100)
        scene.connect(away)
        #expect(scene.worker.reach(nowMs: scene.nowMs) == Reach(reachedCount: 2))
    }

    @Test func `one that only stood in the log is not waited for when a link to it cannot be made`() {
        let scene = Scene(servers: 0)
        scene.worker.announced(LinkIdentity(name: "dead", epoch: 1), address: "", isPast: true, nowMs: scene.nowMs)
        #expect(scene.worker.reach(nowMs: scene.nowMs).missing.count == 1)
        scene.worker.linkEnded(0, reason: "refused", nowMs: scene.nowMs)
        #expect(scene.worker.reach(nowMs: scene.nowMs) == Reach())
    }

    @Test func `one that only stood in the log is there when it takes a connection, though it refuses who we are`() {
        let scene = Scene(servers: 0)
        scene.worker.announced(LinkIdentity(name: "0", epoch: 1), address: "here", isPast: true, nowMs: scene.nowMs)
        scene.worker.linkConnected(0, nonce: [UInt8](repeating: 1, count: 32), nowMs: scene.nowMs)
        scene.worker.linkEnded(0, reason: "wrong secret", nowMs: scene.nowMs)
        let reach = scene.worker.reach(nowMs: scene.nowMs)
        #expect(reach.missing.map(\.reason) == ["wrong secret"] && reach.isUseless)
    }

    // MARK: - Refused records

    @Test func `a record that is refused is committed once its refusal is in the log`() {
        let scene = Scene(servers: 0)
        scene.write("nonsense")
        #expect(scene.worker.commitPositions().first?.offset == 0)
        let refused = scene.worker.takeRejected()
        #expect(refused.count == 1 && scene.worker.commitPositions().first?.offset == 0)
        for (tag, _) in refused { scene.worker.outputDone(tag) }
        #expect(scene.worker.commitPositions().first?.offset == 1)
    }

    @Test func `no more is read when the log takes nothing`() {
        let scene = Scene(servers: 0)
        var count = 0
        while !scene.worker.isBlocked, count < 100_000 {
            scene.write("nonsense")
            count += 1
        }
        #expect(count == 1_000)
        let refused = scene.worker.takeRejected()
        #expect(!scene.worker.isBlocked)
        for (tag, _) in refused { scene.worker.outputDone(tag) }
        #expect(scene.worker.commitPositions().first?.offset == 1_000)
    }

    // MARK: - A chat server that does not read

    @Test func `it is left behind, and the devices of the others do not notice`() {
        let scene = Scene(servers: 2) { $0.linkBytesMax = 5_000 }
        let slow = ModelDevice(user: user(1), device: device(1))
        let quick = ModelDevice(user: user(2), device: device(2))
        scene.servers[0].open(slow)
        scene.servers[1].open(quick)
        for number in 0..<2 { scene.exchange(number) }
        func load() {
            for _ in 0..<20 {
                scene.message(to: user(1), bytes: 500)
                scene.message(to: user(2))
                scene.exchange(1)
            }
        }
        load()
        // Others are kept waiting for a moment, and not again when it is full again soon after.
        #expect(scene.worker.isBlocked)
        scene.tick(afterMs: 150)
        #expect(!scene.worker.isBlocked && scene.worker.isLinkOpen(0))
        scene.exchange(0)
        load()
        #expect(!scene.worker.isBlocked)
        #expect(quick.seen.count == 40)
        #expect(scene.worker.commitPositions().first?.offset ?? .max < 80, "what it missed is not committed")
        scene.exchange(0)
        #expect(slow.seen.map(\.offset) == (0..<40).map { Int64($0 * 2) })
        #expect(scene.worker.commitPositions().first?.offset == 80)
        #expect(scene.worker.counts.leftBehind == 2 && scene.worker.counts.stuckLinks == 0)
    }

    @Test func `it is given up when it takes nothing, and fills what it missed when it is back`() {
        let scene = Scene(servers: 2) { $0.linkBytesMax = 5_000 }
        let slow = ModelDevice(user: user(1), device: device(1))
        scene.servers[0].open(slow)
        scene.exchange(0)
        for _ in 0..<20 { scene.message(to: user(1), bytes: 500) }
        scene.tick(afterMs: 150)
        #expect(!scene.worker.isBlocked)
        scene.tick(afterMs: scene.worker.settings.stuckMs)
        #expect(scene.worker.counts.stuckLinks == 1 && !scene.worker.isLinkOpen(0))
        scene.servers[0].lose(0)
        scene.message(to: user(1))
        scene.tick(afterMs: 100)
        scene.connect(0)
        #expect(slow.seen.map(\.offset) == Array(0...20))
    }

    @Test func `it hears of presence when it has caught up, as it is then`() {
        let scene = Scene(servers: 2) {
            $0.linkBytesMax = 5_000
            $0.presenceGraceMs = 10
        }
        scene.servers[0].open(ModelDevice(user: user(1), device: device(1)))
        scene.servers[0].watch(user(2))
        scene.exchange(0)
        let told = scene.servers[0].presenceCount
        for _ in 0..<20 { scene.message(to: user(1), bytes: 500) }
        let other = scene.servers[1].open(ModelDevice(user: user(2), device: device(2)))
        scene.exchange(1)
        scene.tick(afterMs: 10)
        scene.servers[1].close(other)
        scene.exchange(1)
        scene.tick(afterMs: 10)
        scene.tick(afterMs: 10)
        scene.exchange(0)
        #expect(scene.servers[0].presenceCount == told + 1)
        #expect(scene.servers[0].presence[user(2)]?.status == .offline)
        #expect(scene.servers[0].presence[user(2)]?.lastSeen ?? 0 > 0)
    }

    // MARK: - What anybody may ask

    @Test func `who asks for the presence of users that nobody knows makes no table grow`() {
        let scene = Scene(servers: 1)
        for number in 100..<1_100 { scene.servers[0].watch(user(number)) }
        scene.exchange(0)
        #expect(scene.servers[0].presence.count == 1_000)
        #expect(scene.worker.knownUserCount == 0)
        // Who turns up later is told of all the same.
        scene.servers[0].open(ModelDevice(user: user(100), device: device(1)))
        scene.exchange(0)
        scene.tick(afterMs: 10)
        scene.exchange(0)
        #expect(scene.servers[0].presence[user(100)]?.status == .online)
    }

    @Test func `a device that begins where the log holds nothing has a time to tell History`() {
        let scene = Scene(servers: 1)
        let device = ModelDevice(user: user(1), device: device(1))
        scene.servers[0].open(device)
        scene.exchange(0)
        #expect(device.cursor?.timestamp == scene.nowMs)
    }
}
