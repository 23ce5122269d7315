import Delivery
import PushLink
import Testing
import Wire

/// One partition, two workers that may both take themselves for its owner, one chat server and one device that was away:
/// a registration handshake with everything that can happen meanwhile. What arrives first is decided by `choices`, so
/// that every order can be tried.
private final class Handover {
    enum Move: Equatable, Sendable {
        /// The next frame of a link arrives at the chat server, or all that it has said at the worker.
        case toServer(Int)
        case toWorker(Int)
        /// The second worker takes the partition over; the first does not hear of it.
        case takeOver
        /// The first worker hears that it is no longer the owner.
        case disown
        /// The first worker's link breaks.
        case cut
        /// Something is written for the user.
        case append
    }

    private static let secret = LinkSecret { message in
        var sum: UInt8 = 7
        for byte in message { sum = sum &* 31 &+ byte }
        return [UInt8](repeating: sum, count: 32)
    }

    private let server = ModelChatServer(LinkIdentity(name: "server", epoch: 1), secret)
    private var workers: [DeliveryWorker] = []
    private var toServer: [[[UInt8]]] = [[], []]
    private var toWorker: [[[UInt8]]] = [[], []]
    private var isLinked = [true, true]
    private var log: [Cursor] = []
    private var committed: Int64 = 0
    private var pending: [Move] = []
    private var owner = 0
    let device = ModelDevice(user: user(1), device: DeliveryTests.device(1))
    private let nowMs: Int64 = 1_000

    init(_ happenings: [Move]) {
        for number in 0..<2 {
            var settings = DeliverySettings(
                identity: LinkIdentity(name: "worker-\(number)", epoch: 1), secret: Self.secret, partitionCount: 1)
            settings.makesPushes = false
            let worker = DeliveryWorker(settings)
            workers.append(worker)
            worker.announced(server.identity, address: "server", nowMs: nowMs)
            worker.directoryRead(nowMs: nowMs)
            _ = worker.takeActions()
            server.accept(number, nowMs: nowMs)
            worker.linkConnected(0, nonce: [UInt8](repeating: UInt8(number), count: 32), nowMs: nowMs)
        }
        for _ in 0..<4 { append() }
        // Both links stand and the first worker delivers before anything is left to chance.
        own(0, term: 1)
        settle()
        device.cursor = log[1]
        device.start = log[1]
        server.open(device)
        collect()
        pending = happenings
    }

    private func own(_ number: Int, term: UInt64) {
        owner = number
        workers[number].own(
            0, term: term, readsFrom: 0, remembersFrom: 0, liveFrom: committed, knownEnd: Int64(log.count), saved: nil,
            nowMs: nowMs)
        read()
    }

    private func append() {
        log.append(at(Int64(log.count)))
        read()
    }

    private func read() {
        for worker in workers where !worker.owned.isEmpty {
            while let next = worker.routed(0)?.offset, next + 1 < Int64(log.count) {
                let value = Array(#"{"to":["\#(device.user)"],"event":{"type":"message"}}"#.utf8)
                let taken = worker.take(0, log[Int(next + 1)], value: value.span, source: nil, nowMs: nowMs)
                guard taken == .taken else { break }
            }
        }
        collect()
    }

    /// Whatever the ends want to say is cut into frames, each of which arrives by itself.
    private func collect() {
        for number in 0..<2 {
            for action in workers[number].takeActions() {
                switch action {
                case .resume: read()
                case .connect(let instance, _) where !isLinked[number]: connect(number, instance)
                case .disconnect: break
                default: break
                }
            }
            workers[number].serveFills(0, room: 1 << 20)
            toServer[number] += Self.frames(workers[number].takeOutput(0, nowMs: nowMs))
            toWorker[number] += Self.frames(server.takeOutput(number, nowMs: nowMs))
        }
    }

    private func connect(_ number: Int, _ instance: Int) {
        isLinked[number] = true
        server.accept(number, nowMs: nowMs)
        workers[number].linkConnected(instance, nonce: [UInt8](repeating: 9, count: 32), nowMs: nowMs)
    }

    private static func frames(_ bytes: [UInt8]) -> [[UInt8]] {
        var frames: [[UInt8]] = []
        var start = 0
        while start < bytes.count {
            var length = 0
            for index in 0..<4 { length |= Int(bytes[start + index]) << (index * 8) }
            frames.append(Array(bytes[start..<start + 4 + length]))
            start += 4 + length
        }
        return frames
    }

    private var arrivals: [Move] {
        (0..<2).flatMap { number -> [Move] in
            (toServer[number].isEmpty ? [] : [.toServer(number)])
                + (toWorker[number].isEmpty ? [] : [.toWorker(number)])
        }
    }

    /// What may happen next. A worker hears that it has lost the partition after another has got it.
    var moves: [Move] { pending.filter { $0 != .disown || owner == 1 } + arrivals }

    func make(_ move: Move) {
        pending.removeAll { $0 == move }
        switch move {
        case .toServer(let number):
            server.receive(number, toServer[number].removeFirst(), nowMs: nowMs)
        case .toWorker(let number):
            let bytes = toWorker[number].flatMap { $0 }
            toWorker[number] = []
            let error = workers[number].linkReceived(0, bytes.span, nowMs: nowMs)
            #expect(error == nil)
        case .takeOver:
            committed = workers[0].commitPositions().first?.offset ?? committed
            own(1, term: 2)
        case .disown: workers[0].disown(0)
        case .cut:
            isLinked[0] = false
            (toServer[0], toWorker[0]) = ([], [])
            server.lose(0)
            workers[0].linkEnded(0, nowMs: nowMs)
            workers[0].tick(nowMs: nowMs + 60)
        case .append: append()
        }
        #expect(server.failed.isEmpty)
        collect()
        // The new owner hears at once: only what the old one knows can be out of date.
        if !toWorker[1].isEmpty { make(.toWorker(1)) }
    }

    /// Everything under way arrives; time passes.
    func settle() {
        for round in 0..<10 {
            while let move = arrivals.first { make(move) }
            for worker in workers { worker.tick(nowMs: nowMs + Int64(round) * 100) }
            read()
        }
    }

    var fault: String? {
        let expected = (2..<Int64(log.count)).map { $0 }
        let seen = device.seen.map(\.offset)
        return seen == expected && server.isLive ? nil : "shown \(seen) of \(expected), live: \(server.isLive)"
    }
}

struct HandoverTests {
    private static let happenings: [[Handover.Move]] = [
        [.takeOver], [.takeOver, .disown], [.takeOver, .cut], [.takeOver, .append], [.cut, .append],
    ]
    /// So many orders are no longer tried in a test's time: make less happen.
    private static let ordersMax = 20_000

    @Test(arguments: happenings.indices)
    func `a session misses and repeats nothing, in whatever order its two owners' frames arrive`(index: Int) {
        // Walks through the tree of all orders, each from the start.
        var choices: [Int] = []
        var orders = 0
        var faults: [String] = []
        repeat {
            let handover = Handover(Self.happenings[index])
            var widths: [Int] = []
            var story: [Handover.Move] = []
            while case let moves = handover.moves, !moves.isEmpty {
                if widths.count == choices.count { choices.append(0) }
                let move = moves[choices[widths.count]]
                widths.append(moves.count)
                story.append(move)
                handover.make(move)
            }
            handover.settle()
            orders += 1
            if let fault = handover.fault { faults.append("\(story): \(fault)") }
            // The next order: the last choice that can be another one is.
            while let last = choices.last, last + 1 == widths[choices.count - 1] { choices.removeLast() }
            if let last = choices.popLast() { choices.append(last + 1) }
        } while !choices.isEmpty && orders < Self.ordersMax && faults.count < 3
        #expect(faults.isEmpty)
        #expect(orders > 10 && orders < Self.ordersMax)
    }
}
