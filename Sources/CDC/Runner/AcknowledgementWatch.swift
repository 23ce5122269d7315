/// Notices that Kafka has fallen silent while records wait for it. It goes by the records that were acknowledged, not by
/// the position that they make confirmable: that one stands still for as long as a large transaction or a table takes.
struct AcknowledgementWatch {
    enum News: Equatable { case silent, back }

    private static let patienceNs: UInt64 = 5_000_000_000

    private var acknowledged = 0
    private var lastNs: UInt64
    private var hasTold = false

    init(from now: UInt64) { lastNs = now }

    /// Answers what has changed since the last look.
    mutating func look(_ now: UInt64, acknowledged count: Int, inFlight: Int) -> News? {
        if inFlight == 0 || count != acknowledged {
            acknowledged = count
            lastNs = now
            defer { hasTold = false }
            return hasTold ? .back : nil
        }
        guard !hasTold, now - lastNs > Self.patienceNs else { return nil }
        hasTold = true
        return .silent
    }
}
