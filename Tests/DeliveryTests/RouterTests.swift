import Delivery
import PushLink
import Testing
import Wire

/// What `Router` must do, the slow and obvious way.
private struct NaiveRouter {
    struct Entry: Hashable {
        var instance: Int
        var number: SessionNumber
        var user: Int
        var device: Int
        var chats: Set<Int>
    }

    var entries: [Entry] = []

    mutating func register(_ entry: Entry) {
        entries.removeAll { $0.instance == entry.instance && $0.number == entry.number }
        entries.append(entry)
    }
}

struct RouterTests {
    private func routed(_ targets: Targets) -> Set<String> {
        var set: Set<String> = []
        for instance in targets.instances {
            for session in targets.sessions(of: instance) { #expect(set.insert("\(instance)/\(session)").inserted) }
        }
        return set
    }

    @Test func `sends each user's events to each of its sessions`() {
        var router = Router()
        func session(_ number: SessionNumber, _ user: Int) -> SessionRegistration {
            SessionRegistration(number: number, user: DeliveryTests.user(user), device: device(Int(number)), after: nil)
        }
        #expect(router.register(session(1, 7), user: 7, largeChats: [], instance: 0) == .first)
        #expect(router.register(session(2, 7), user: 7, largeChats: [], instance: 3) == .further)
        #expect(router.register(session(2, 7), user: 7, largeChats: [], instance: 3) == .again)
        var targets = Targets()
        #expect(router.route(user: 7, into: &targets))
        #expect(routed(targets) == ["0/1", "3/2"])
        targets.removeAll()
        #expect(router.route(user: 7, device: device(2), into: &targets))
        #expect(routed(targets) == ["3/2"])
        targets.removeAll()
        #expect(!router.route(user: 8, into: &targets))
        let first = router.unregister(instance: 0, number: 1)
        #expect(first?.wasLast == false)
        let last = router.unregister(instance: 3, number: 2)
        #expect(last?.wasLast == true && last?.user == 7)
        #expect(router.unregister(instance: 3, number: 2) == nil)
        #expect(router.count == 0 && router.onlineUserCount == 0)
    }

    @Test(arguments: 0..<20)
    func `agrees with a plain list over random histories`(round: Int) {
        let seed = UInt64.random(in: 0...UInt64.max) &+ UInt64(round)
        var random = SplitMix(seed: seed)
        var router = Router()
        var naive = NaiveRouter()
        for step in 0..<800 {
            let instance = random.below(4)
            let number = SessionNumber(random.below(60))
            switch random.below(10) {
            case 0..<5:
                let chats = Set((0..<random.below(3)).map { _ in random.below(5) })
                let entry = NaiveRouter.Entry(
                    instance: instance, number: number, user: random.below(20), device: random.below(3), chats: chats)
                naive.register(entry)
                router.register(
                    SessionRegistration(
                        number: number, user: user(entry.user), device: device(entry.device), after: nil),
                    user: entry.user, largeChats: chats.map { chat($0) }, instance: instance)
            case 5, 6:
                let known = naive.entries.first { $0.instance == instance && $0.number == number }
                naive.entries.removeAll { $0 == known }
                let answer = router.unregister(instance: instance, number: number)
                #expect(answer?.user == known?.user)
                if let known {
                    #expect(answer?.wasLast == !naive.entries.contains { $0.user == known.user }, "seed \(seed)")
                }
            case 7:
                let isMember = random.chance(60)
                let chosen = random.below(5)
                let who = random.below(20)
                router.declare(user: who, chat: chat(chosen), isMember: isMember)
                for index in naive.entries.indices where naive.entries[index].user == who {
                    if isMember {
                        naive.entries[index].chats.insert(chosen)
                    } else {
                        naive.entries[index].chats.remove(chosen)
                    }
                }
            case 8 where random.chance(10):
                var left: Set<Int> = []
                router.removeInstance(instance) { user, _ in left.insert(user) }
                let before = Set(naive.entries.map(\.user))
                naive.entries.removeAll { $0.instance == instance }
                #expect(left == before.subtracting(naive.entries.map(\.user)), "seed \(seed) step \(step)")
            default: break
            }
            #expect(router.count == naive.entries.count, "seed \(seed) step \(step)")
            #expect(router.onlineUserCount == Set(naive.entries.map(\.user)).count, "seed \(seed) step \(step)")
            var targets = Targets()
            let asked = random.below(20)
            router.route(user: asked, into: &targets)
            let expected = naive.entries.filter { $0.user == asked }.map { "\($0.instance)/\($0.number)" }
            #expect(routed(targets) == Set(expected), "seed \(seed) step \(step)")
            targets.removeAll()
            let large = random.below(5)
            router.route(largeChat: chat(large), into: &targets)
            let members = naive.entries.filter { $0.chats.contains(large) }.map { "\($0.instance)/\($0.number)" }
            #expect(routed(targets) == Set(members), "seed \(seed) step \(step)")
        }
    }

    @Test func `of a device's sessions on several instances the last opened stays, whichever is named first`() {
        func session(_ number: SessionNumber, openedUs: Int64, device number2: Int = 1) -> SessionRegistration {
            SessionRegistration(number: number, user: user(7), device: device(number2), openedUs: openedUs, after: nil)
        }
        func overtaken(_ newcomer: SessionRegistration, on instance: Int) -> [String] {
            var router = Router()
            router.register(session(5, openedUs: 100), user: 7, largeChats: [], instance: 2)
            router.register(session(6, openedUs: 100, device: 2), user: 7, largeChats: [], instance: 2)
            return router.overtaken(by: newcomer, user: 7, instance: instance, outranks: >).map {
                "\($0.instance)/\($0.number)"
            }
        }
        #expect(overtaken(session(1, openedUs: 101), on: 0) == ["2/5"])
        #expect(overtaken(session(1, openedUs: 99), on: 0) == ["0/1"])
        // Of the same time: by the instances' ranks.
        #expect(overtaken(session(1, openedUs: 100), on: 1) == ["1/1"])
        #expect(overtaken(session(1, openedUs: 100), on: 3) == ["2/5"])
        // The instance itself sees to its own, and other devices have nothing to do with it.
        #expect(overtaken(session(1, openedUs: 101), on: 2).isEmpty)
        #expect(overtaken(session(1, openedUs: 101, device: 3), on: 0).isEmpty)
    }

    @Test func `lets 50,000 members of one large chat leave one by one without looking through it`() {
        var router = Router()
        for number in 0..<50_000 {
            router.register(
                SessionRegistration(
                    number: SessionNumber(number), user: user(number), device: device(number), after: nil),
                user: number, largeChats: [chat(1)], instance: 0)
        }
        for number in 0..<49_999 { router.unregister(instance: 0, number: SessionNumber(number)) }
        var targets = Targets()
        router.route(largeChat: chat(1), into: &targets)
        #expect(routed(targets) == ["0/49999"])
    }
}
