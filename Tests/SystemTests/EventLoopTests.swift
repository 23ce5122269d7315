import Runtime
import System
import Testing

@Suite struct EventLoopTests {
    @Test func `timers fire in the order of their deadlines, and of their scheduling within one`() throws {
        let loop = try EventLoop()
        var fired: [Int] = []
        loop.schedule(afterMs: 20) { fired.append(3) }
        loop.schedule(afterMs: 1) { fired.append(1) }
        loop.schedule(afterMs: 20) { fired.append(4) }
        loop.schedule(afterMs: 5) { fired.append(2) }
        let cancelled = loop.schedule(afterMs: 2) { fired.append(99) }
        #expect(cancelled.cancel())
        #expect(!cancelled.cancel())
        try loop.runUntil { fired.count >= 4 }
        #expect(fired == [1, 2, 3, 4])
    }

    @Test func `no timer fires early`() throws {
        let loop = try EventLoop()
        let clock = SystemClock()
        var early = 0
        var left = 200
        var random = SeededGenerator(seed: 5)
        for _ in 0..<left {
            let delay = Int.random(in: 0...40, using: &random)
            let start = loop.monotonicNs
            loop.schedule(afterMs: delay) {
                if clock.monotonicNs < start + UInt64(delay) * 1_000_000 { early += 1 }
                left -= 1
            }
        }
        try loop.runUntil { left == 0 }
        #expect(early == 0)
    }

    @Test func `a timer that schedules itself again does not stop the loop from its work`() throws {
        let loop = try EventLoop()
        var runs = 0
        var again: (() -> Void)?
        again = {
            runs += 1
            loop.schedule(afterMs: 0) { again?() }
        }
        again?()
        var called = false
        loop.remote.execute { _ in }
        loop.schedule(afterMs: 20) { called = true }
        try loop.runUntil { called }
        #expect(runs > 1)
        again = nil
    }

    @Test func `hooks run at the end of the tick that they were made in`() throws {
        let loop = try EventLoop()
        var log: [String] = []
        loop.schedule(afterMs: 0) {
            loop.atTickEnd { log.append("hook") }
            log.append("timer")
        }
        try loop.runUntil { log.count == 2 }
        #expect(log == ["timer", "hook"])
    }

    // MARK: Other threads

    @Test func `calls from many threads all run, each thread's in order`() throws {
        let loop = try EventLoop()
        let remote = loop.remote
        let seen = Guarded<[[Int]]>(Array(repeating: [], count: 8))
        let threads = (0..<8).map { writer in
            Thread.start(name: "writer-\(writer)") {
                for index in 0..<2000 {
                    remote.execute { _ in seen.withLock { $0[writer].append(index) } }
                }
            }
        }
        try loop.runUntil { seen.withLock { $0.allSatisfy { $0.count == 2000 } } }
        for thread in threads { thread.join() }
        for order in seen.withLock({ $0 }) { #expect(order == Array(0..<2000)) }
    }

    @Test func `a storm of calls that each make another does not starve the timers`() throws {
        let loop = try EventLoop()
        let remote = loop.remote
        @Sendable func storm(_ loop: EventLoop) { remote.execute(storm) }
        for _ in 0..<5000 { remote.execute(storm) }
        var fired = false
        loop.schedule(afterMs: 5) { fired = true }
        try loop.runUntil { fired }
        loop.close()
    }

    @Test func `a call to a sleeping loop wakes it at once`() throws {
        let woken = Handover<UInt64>()
        let thread = try LoopThread.start(name: "sleeper") { _ in }
        for _ in 0..<100 {
            let round = Handover<Bool>()
            thread.remote.execute { _ in round.put(true) }
            #expect(round.take(timeoutMs: 10_000) == true)
        }
        thread.remote.execute { loop in woken.put(loop.monotonicNs) }
        #expect(woken.take(timeoutMs: 10_000) != nil)
        thread.stop()
        thread.join()
        #expect(!thread.remote.execute { _ in })
    }

    @Test func `a mailbox hands over everything in order, in batches, and is full at its capacity`() throws {
        let loop = try EventLoop()
        var batches: [[Int]] = []
        let box = Mailbox<Int>(on: loop, capacity: 100) { batches.append($0) }
        for index in 0..<100 { #expect(box.post(index)) }
        #expect(!box.post(100))
        try loop.runUntil { !batches.isEmpty }
        #expect(batches == [Array(0..<100)])
        let producer = Thread.start(name: "producer") {
            var next = 100
            while next < 5000 { if box.post(next) { next += 1 } }
        }
        try loop.runUntil { batches.joined().count == 5000 }
        producer.join()
        #expect(Array(batches.joined()) == Array(0..<5000))
        box.close()
        #expect(!box.post(1))
    }

    @Test func `a mailbox whose loop has ended takes nothing`() throws {
        let box = Handover<Mailbox<Int>>()
        let thread = try LoopThread.start(name: "ending") { loop in
            box.put(Mailbox<Int>(on: loop, capacity: 10) { _ in })
        }
        thread.stop()
        thread.join()
        #expect(!box.take().post(1))
        #expect(!box.take().post(2))
    }

    @Test func `a signal raised a thousand times before it is heard is heard once, and again after`() throws {
        let loop = try EventLoop()
        var heard = 0
        let signal = Signal(on: loop) { heard += 1 }
        let thread = Thread.start(name: "raiser") { for _ in 0..<1000 { signal.raise() } }
        thread.join()
        try loop.runUntil { heard > 0 }
        #expect(heard == 1)
        signal.raise()
        try loop.runUntil { heard == 2 }
    }

    @Test func `what is bound to a loop is let go on its thread, whoever drops it last`() throws {
        let gone = Handover<Bool>()
        let bound = Guarded<LoopBound<Departing>?>(nil)
        let thread = try LoopThread.start(name: "owner") { loop in
            bound.withLock { $0 = LoopBound(Departing(loop.remote, gone), on: loop) }
        }
        bound.withLock { $0 = nil }
        #expect(gone.take(timeoutMs: 10_000) == true)
        thread.stop()
        thread.join()
    }

    private final class Departing {
        private let thread = ThreadName.current
        private let gone: Handover<Bool>

        init(_ remote: EventLoop.Remote, _ gone: Handover<Bool>) {
            self.gone = gone
        }

        deinit { gone.put(thread == ThreadName.current && thread == "owner") }
    }

    @Test func `what a loop thread's setup throws is thrown to the one who starts it`() {
        let error = #expect(throws: SystemError.self) {
            _ = try LoopThread.start(name: "failing") { _ in
                throw SystemError(.invalidArgument, "set up", message: "no")
            }
        }
        #expect(error?.code == .invalidArgument)
    }

    // MARK: Foreign descriptors

    @Test func `a watched descriptor is heard while it is ready and until it is cancelled`() throws {
        let loop = try EventLoop()
        var options = ChildProcess.Options()
        options.output = .pipe
        let child = try ChildProcess("sh", ["-c", "echo line"], options: options)
        var events: [Readiness] = []
        let registration = try loop.watch(child.output) { events.append($0) }
        try loop.runUntil { events.count >= 3 }
        #expect(events[0].contains(.read))
        registration.interest = []
        #expect(ChildProcess.readLine(child.output) == "line")
        child.wait()
        registration.cancel()
        registration.cancel()
        let count = events.count
        for _ in 0..<3 { loop.runOnce(timeoutMs: 1) }
        #expect(events.count == count)
        #expect(!registration.isActive)
    }

    @Test func `a descriptor that cannot be watched is an error`() throws {
        let loop = try EventLoop()
        #expect(throws: SystemError.self) { try loop.watch(-1) { _ in } }
        loop.close()
        #expect(throws: SystemError.self) { try loop.watch(0) { _ in } }
    }
}
