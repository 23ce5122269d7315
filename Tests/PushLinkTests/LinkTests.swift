import PushLink
import Testing
import Wire

private func user(_ number: UInt64) -> UserID { UserID(UUID(high: 1, low: number)) }
private func device(_ number: UInt64) -> DeviceID { DeviceID(UUID(high: 2, low: number)) }
private func chat(_ number: UInt64) -> ChatID { ChatID(UUID(high: 3, low: number)) }

private let instanceMessages: [InstanceMessage] = [
    .refused(partition: 3, term: 12),
    .register(
        request: 1, partition: 3, isLast: false,
        [
            SessionRegistration(number: 1, user: user(1), device: device(1), after: nil),
            SessionRegistration(
                number: .max, user: user(2), device: device(2), openedUs: 1_700_000_000_000_001,
                after: Cursor(offset: 5, timestamp: 6), largeChats: [chat(1), chat(2)]),
        ]),
    .register(request: 2, partition: 0, isLast: true, []),
    .unregister(partition: 3, [1, 2, .max]),
    .fill(
        FillRequest(
            request: 8, partition: 3, session: 4, after: Cursor(offset: -1, timestamp: 0), through: 77, bytesMax: 65_536
        )),
    .watch([user(1), user(5)]),
    .unwatch([user(1)]),
    .storeCursors([DeviceCursor(user: user(1), device: device(2), cursor: Cursor(offset: 9, timestamp: 10))]),
    .lookUpCursor(request: 6, user: user(1), device: device(1)),
]

private let workerMessages: [WorkerMessage] = [
    .claim(partitionCount: 16, [PartitionClaim(partition: 3, term: 1), PartitionClaim(partition: 15, term: .max)]),
    .release([3, 4]),
    .registered(request: 1, partition: 3, liveAfter: Cursor(offset: 99, timestamp: 1_700_000_000_000)),
    .takenOver(partition: 3, .max),
    .progress([PartitionProgress(partition: 3, routed: Cursor(offset: 100, timestamp: 5))]),
    .cannotFill(request: 8, session: 4, .older, windowStart: Cursor(offset: 44, timestamp: 3)),
    .cannotFill(request: 8, session: 4, .unknownSession, windowStart: .start),
    .presence([PresenceNotice(user: user(1), status: .online, lastSeen: 12)]),
    .storedCursor(request: 6, .found(Cursor(offset: 9, timestamp: 10))),
    .storedCursor(request: 7, .none),
    .storedCursor(request: 8, .unavailable),
]

struct PushLinkTests {
    @Test func `opens when both know the secret`() throws {
        let pair = try LinkPair.open()
        #expect(pair.worker.isOpen && pair.instance.isOpen)
    }

    @Test func `ends before anything is said when the worker does not know the secret`() throws {
        var pair = LinkPair(workerKey: 7, instanceKey: 8)
        try pair.toInstance()
        try pair.toWorker()
        #expect(throws: LinkError(.notAuthentic, "the worker does not know the secret")) { try pair.toInstance() }
        #expect(!pair.instance.isOpen)
        #expect(throws: LinkError(.closedByPeer, "the instance closed the link: the worker does not know the secret")) {
            try pair.toWorker()
        }
    }

    @Test func `is refused by a worker whose instance only reflects what it was sent`() throws {
        var pair = LinkPair()
        try pair.toInstance()
        try pair.toWorker()
        // The proof comes back as the welcome.
        var proof = pair.worker.takeOutput(nowMs: 0)
        proof[4] = 4
        pair.worker.receive(proof.span, nowMs: 0)
        #expect(throws: LinkError(.notAuthentic, "the instance does not know the secret")) {
            try pair.worker.next()
        }
    }

    @Test(arguments: [1, 2, 3, 7, 64, Int.max])
    func `carries every message whole, however its bytes are cut`(step: Int) throws {
        var pair = try LinkPair.open()
        for message in instanceMessages { pair.instance.send(message) }
        #expect(try pair.toWorker(step: step) == instanceMessages.map { .message($0) })
        for message in workerMessages { pair.worker.send(message) }
        #expect(try pair.toInstance(step: step) == workerMessages.map { .message($0) })
    }

    @Test(arguments: [1, 5, Int.max])
    func `carries a batch's payload and sessions, and takes its acknowledgement`(step: Int) throws {
        var pair = try LinkPair.open()
        let payload = Array(#"{"type":"message","text":"hello"}"#.utf8)
        let cursor = Cursor(offset: 41, timestamp: 1_000)
        let sessions: [SessionNumber] = [7, 8, .max]
        pair.worker.sendBatch(
            partition: 2, cursor: cursor, kind: .message, sessions: sessions.span, payload: payload.span)
        #expect(pair.worker.inFlightCount == 1)
        #expect(pair.worker.inFlightByteCount > payload.count)
        let events = try pair.toInstance(step: step)
        guard case .message(.batch(let batch)) = events.first, events.count == 1 else {
            Issue.record("\(events)")
            return
        }
        #expect(batch.partition == 2 && batch.cursor == cursor && batch.kind == .message)
        #expect(pair.instance.sessions(of: batch) == sessions)
        #expect(pair.bytes(of: batch) == payload)
        pair.instance.acknowledge()
        pair.instance.acknowledge()
        #expect(try pair.toWorker() == [.message(.acknowledge(batches: 1))])
        #expect(pair.worker.inFlightCount == 0 && pair.worker.inFlightByteCount == 0)
    }

    @Test func `tells which offsets are still in flight`() throws {
        var pair = try LinkPair.open()
        func send(_ partition: Int32, _ offset: Int64) {
            let sessions: [SessionNumber] = [1]
            let payload: [UInt8] = [1, 2, 3]
            pair.worker.sendBatch(
                partition: partition, cursor: Cursor(offset: offset, timestamp: 0), kind: .other,
                sessions: sessions.span, payload: payload.span)
        }
        func inFlight() -> [String] {
            var list: [String] = []
            pair.worker.forEachInFlight { list.append("\($0):\($1)") }
            return list
        }
        send(0, 5)
        send(1, 9)
        #expect(try pair.toInstance().count == 2)
        pair.instance.acknowledge()
        send(0, 6)
        #expect(inFlight() == ["0:5", "1:9", "0:6"])
        try pair.toWorker()
        #expect(inFlight() == ["0:6"])
    }

    @Test func `carries a page of missed events`() throws {
        var pair = try LinkPair.open()
        let payloads = (0..<3).map { Array("event \($0)".utf8) }
        pair.worker.sendPage(request: 5, session: 9) { append in
            for (index, payload) in payloads.enumerated() { append(Int64(index * 10), .message, payload.span) }
            return (upTo: Cursor(offset: 30, timestamp: 8), isLast: true)
        }
        guard case .message(.page(let page)) = try pair.toInstance(step: 3).first else {
            Issue.record("no page")
            return
        }
        #expect(page.request == 5 && page.session == 9 && page.isLast && page.upTo == Cursor(offset: 30, timestamp: 8))
        #expect(page.events.map(\.offset) == [0, 10, 20])
        #expect(page.events.map { pair.bytes(of: $0) } == payloads)
    }

    @Test func `ends when more batches are acknowledged than were sent`() throws {
        var pair = try LinkPair.open()
        pair.instance.send(.acknowledge(batches: 1))
        #expect(throws: LinkError.self) { try pair.toWorker() }
        #expect(pair.worker.failure?.code == .protocolViolation)
    }

    @Test func `beats while idle and ends when the other has fallen silent`() throws {
        var pair = try LinkPair.open()
        let start = pair.nowMs
        pair.nowMs = start + LinkLimits.heartbeatMs
        try pair.worker.tick(nowMs: pair.nowMs)
        try pair.instance.tick(nowMs: pair.nowMs)
        #expect(try pair.toInstance().isEmpty)
        pair.nowMs = start + LinkLimits.silenceMsMax
        // The instance has heard a heartbeat since; the worker has heard nothing.
        try pair.instance.tick(nowMs: pair.nowMs)
        #expect(throws: LinkError.self) { try pair.worker.tick(nowMs: pair.nowMs) }
        #expect(pair.worker.failure?.code == .silent)
    }

    @Test func `lets a stranger send no more than a handshake`() {
        var pair = LinkPair()
        let huge: [UInt8] = [0, 4, 0, 0, 1]
        pair.instance.receive(huge.span, nowMs: 0)
        #expect(throws: LinkError.self) { try pair.instance.next() }
        #expect(pair.instance.failure?.code == .tooLarge)
    }

    @Test func `ends at the first frame that is cut short, padded, or out of place, and never traps`() throws {
        var generator = SplitMix(seed: UInt64.random(in: 0...UInt64.max))
        let seed = generator.seed
        for round in 0..<3_000 {
            var pair = try LinkPair.open()
            pair.instance.send(instanceMessages.randomElement(using: &generator)!)
            pair.worker.send(workerMessages.randomElement(using: &generator)!)
            var toWorker = pair.instance.takeOutput(nowMs: 0)
            var toInstance = pair.worker.takeOutput(nowMs: 0)
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let place = Int.random(in: 4..<toWorker.count, using: &generator)
                toWorker[place] = UInt8.random(in: 0...255, using: &generator)
                let other = Int.random(in: 4..<toInstance.count, using: &generator)
                toInstance[other] = UInt8.random(in: 0...255, using: &generator)
            }
            pair.worker.receive(toWorker.span, nowMs: 0)
            pair.instance.receive(toInstance.span, nowMs: 0)
            // Whatever came of it, the link says the same when asked again.
            do { while try pair.worker.next() != nil {} } catch { #expect(pair.worker.failure == error) }
            do { while try pair.instance.next() != nil {} } catch { #expect(pair.instance.failure == error) }
            _ = (round, seed)
        }
    }

    @Test func `refuses each message whose body is one byte short or long`() throws {
        for message in instanceMessages {
            for change in [-1, 1] {
                var pair = try LinkPair.open()
                pair.instance.send(message)
                let bytes = resized(pair.instance.takeOutput(nowMs: 0), by: change)
                pair.worker.receive(bytes.span, nowMs: 0)
                #expect(throws: LinkError.self, "\(message) \(change)") { try pair.worker.next() }
            }
        }
        for message in workerMessages {
            for change in [-1, 1] {
                var pair = try LinkPair.open()
                pair.worker.send(message)
                let bytes = resized(pair.worker.takeOutput(nowMs: 0), by: change)
                pair.instance.receive(bytes.span, nowMs: 0)
                #expect(throws: LinkError.self, "\(message) \(change)") { try pair.instance.next() }
            }
        }
    }

    private func resized(_ frame: [UInt8], by change: Int) -> [UInt8] {
        var frame = frame
        if change < 0 { frame.removeLast(-change) } else { frame += [UInt8](repeating: 0, count: change) }
        let length = UInt32(frame.count - 4)
        for index in 0..<4 { frame[index] = UInt8(truncatingIfNeeded: length >> UInt32(index * 8)) }
        return frame
    }
}

struct SplitMix: RandomNumberGenerator {
    let seed: UInt64
    private var state: UInt64

    init(seed: UInt64) {
        self.seed = seed
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}
