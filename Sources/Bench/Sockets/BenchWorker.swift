import PushLink
import System
import Wire

/// A Delivery worker that owns everything and has no log: it answers registrations at once and pushes what it is given.
final class BenchWorker: StreamDelegate {
    private var link: WorkerLink
    private var stream: Stream?
    private let loop: EventLoop
    private var numbers: [UserID: SessionNumber] = [:]
    private var offset: Int64 = 1
    private(set) var isOpen = false

    init(_ loop: EventLoop, port: Int) {
        self.loop = loop
        let secret = Array(ServerUnderTest.linkSecret.utf8)
        link = WorkerLink(
            identity: LinkIdentity(name: "bench", epoch: 1),
            secret: LinkSecret { Crypto.hmacSHA256(key: secret, $0) }, nonce: Crypto.randomBytes(32),
            nowMs: loop.nowMs)
        stream = Stream.connect(
            host: "127.0.0.1", port: port, on: loop, delegate: self, limits: StreamLimits(bytes: 64 << 20))
        flush()
        beat()
    }

    var inFlight: Int { link.inFlightCount }

    func sessions(of users: Set<UserID>) -> [SessionNumber] { users.compactMap { numbers[$0] } }

    func push(_ event: [UInt8], to sessions: [SessionNumber]) {
        offset += 1
        link.sendBatch(
            partition: 0, cursor: Cursor(offset: offset, timestamp: loop.nowMs), kind: .message,
            sessions: sessions.span,
            payload: event.span)
    }

    func flush() { stream?.write(link.takeOutput(nowMs: loop.nowMs)) }

    private func beat() {
        loop.schedule(afterMs: 1000) { [weak self] in
            guard let self else { return }
            try? link.tick(nowMs: loop.nowMs)
            flush()
            beat()
        }
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        link.receive(bytes, nowMs: loop.nowMs)
        do {
            while let event = try link.next() {
                switch event {
                case .opened:
                    isOpen = true
                    link.send(.claim(partitionCount: 1, [PartitionClaim(partition: 0, term: 1)]))
                case .message(.register(let request, let partition, _, let sessions)):
                    for session in sessions { numbers[session.user] = session.number }
                    let place = Cursor(offset: offset, timestamp: loop.nowMs)
                    link.send(.registered(request: request, partition: partition, liveAfter: place))
                case .message: break
                }
            }
        } catch {
            stream.close()
        }
        flush()
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        self.stream = nil
        isOpen = false
    }
}
