import Testing
import PushLink
import Wire

/// Both ends of one link, with the bytes between them in the test's hands.
struct LinkPair {
    var worker: WorkerLink
    var instance: InstanceLink
    var nowMs: Int64 = 1_000

    /// A keyed mixing function in place of HMAC: the protocol's use of it is what is tested here.
    static func secret(_ key: UInt64) -> LinkSecret {
        LinkSecret { message in
            var state = key
            var output: [UInt8] = []
            for byte in message { state = (state ^ UInt64(byte)) &* 0x100_0000_01b3 &+ 0x9e37_79b9_7f4a_7c15 }
            for _ in 0..<32 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                output.append(UInt8(truncatingIfNeeded: state >> 56))
            }
            return output
        }
    }

    init(workerKey: UInt64 = 7, instanceKey: UInt64 = 7) {
        worker = WorkerLink(
            identity: LinkIdentity(name: "worker-1", epoch: 3), secret: Self.secret(workerKey),
            nonce: [UInt8](repeating: 1, count: 32), nowMs: nowMs)
        instance = InstanceLink(
            identity: LinkIdentity(name: "chat-1", epoch: 9), secret: Self.secret(instanceKey),
            nonce: [UInt8](repeating: 2, count: 32), nowMs: nowMs)
    }

    /// A link that is open on both ends.
    static func open() throws -> LinkPair {
        var pair = LinkPair()
        #expect(try pair.toInstance().isEmpty)
        #expect(try pair.toWorker().isEmpty)
        #expect(try pair.toInstance() == [.opened(LinkIdentity(name: "worker-1", epoch: 3))])
        #expect(try pair.toWorker() == [.opened(LinkIdentity(name: "chat-1", epoch: 9))])
        return pair
    }

    /// Carries what the worker has to say, in pieces of at most `step` bytes.
    @discardableResult
    mutating func toInstance(step: Int = .max) throws -> [InstanceLink.Event] {
        let bytes = worker.takeOutput(nowMs: nowMs)
        var events: [InstanceLink.Event] = []
        var place = 0
        while place < bytes.count {
            let end = place + min(step, bytes.count - place)
            instance.receive(bytes.span.extracting(place..<end), nowMs: nowMs)
            while let event = try instance.next() { events.append(event) }
            place = end
        }
        return events
    }

    @discardableResult
    mutating func toWorker(step: Int = .max) throws -> [WorkerLink.Event] {
        let bytes = instance.takeOutput(nowMs: nowMs)
        var events: [WorkerLink.Event] = []
        var place = 0
        while place < bytes.count {
            let end = place + min(step, bytes.count - place)
            worker.receive(bytes.span.extracting(place..<end), nowMs: nowMs)
            while let event = try worker.next() { events.append(event) }
            place = end
        }
        return events
    }

    func bytes(of batch: Batch) -> [UInt8] { instance.withPayload(of: batch) { [UInt8](copying: $0) } }
    func bytes(of event: FillPage.Event) -> [UInt8] { instance.withPayload(of: event) { [UInt8](copying: $0) } }
}
