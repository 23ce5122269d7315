internal import System

/// What all connections together hold: requests that are not complete or not answered, and answers that clients have not
/// read. Each connection has limits of its own, but ten thousand of them times those are more than there is.
///
/// When the sum is too large nobody's requests are taken up until it has fallen. If it does not, because clients
/// hold what they will never complete or read, the one that holds the most is closed, again and again. Whoever is held
/// back by this or by the journal's backlog is woken from here. On the loop's thread only.
final class HeldBytes {
    private unowned let loop: EventLoop
    private let bytesMax: Int
    private(set) var total = 0
    /// Requests that are taken up and not answered, in all connections.
    private(set) var requests = 0
    private var waiting: [Connection] = []
    private var isScheduled = false
    /// Since when it has been too much without a break.
    private var fullSinceMs: UInt64?

    /// All connections, for when it matters what each of them really holds.
    var connections: () -> [Connection] = { [] }

    private static let checkMs = 5
    private static let patienceMs: UInt64 = 200

    init(bytesMax: Int, loop: EventLoop) {
        self.bytesMax = bytesMax
        self.loop = loop
    }

    var isFull: Bool { total >= bytesMax }

    func change(by bytes: Int, requests: Int) {
        total += bytes
        self.requests += requests
    }

    /// Gives the connection a chance to go on, soon and until it does.
    func wakeWhenRelieved(_ connection: Connection) {
        guard !connection.waitsForRelief else { return }
        connection.waitsForRelief = true
        waiting.append(connection)
        schedule()
    }

    private func schedule() {
        guard !isScheduled else { return }
        isScheduled = true
        loop.schedule(afterMs: Self.checkMs) { [weak self] in
            self?.isScheduled = false
            self?.relieve()
        }
    }

    private func relieve() {
        if isFull { for connection in connections() { connection.report() } }
        if isFull {
            let since = fullSinceMs ?? loop.monotonicMs
            fullSinceMs = since
            if loop.monotonicMs - since >= Self.patienceMs, let most = connections().max(by: Self.holdsLess) {
                most.refuse(.malformed("a client that holds \(most.heldBytes) bytes while there are too many"))
            }
        } else {
            fullSinceMs = nil
        }
        let woken = waiting
        waiting = []
        for connection in woken {
            connection.waitsForRelief = false
            connection.resumeIfPossible()
        }
    }

    private static func holdsLess(_ one: Connection, _ other: Connection) -> Bool { one.heldBytes < other.heldBytes }
}
