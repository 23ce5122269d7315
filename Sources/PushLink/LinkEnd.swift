/// What both ends have in common: bytes in, bytes out, heartbeats and the deadline for silence.
struct LinkEnd {
    var input = FrameBuffer()
    var output: [UInt8] = []
    private(set) var failure: LinkError?
    private var lastReceivedMs: Int64
    private var lastSentMs: Int64

    init(nowMs: Int64) {
        lastReceivedMs = nowMs
        lastSentMs = nowMs
    }

    mutating func receive(_ bytes: Span<UInt8>, nowMs: Int64) {
        lastReceivedMs = nowMs
        input.append(bytes)
    }

    /// Ends the link once: the peer is told why, and nothing is read from it any more.
    mutating func fail(_ error: LinkError) -> LinkError {
        if let failure { return failure }
        failure = error
        if error.code != .closedByPeer { output.appendGoodbye(error) }
        return error
    }

    /// What is to be written, handed over.
    mutating func takeOutput(nowMs: Int64) -> [UInt8] {
        guard !output.isEmpty else { return [] }
        lastSentMs = nowMs
        var taken: [UInt8] = []
        swap(&taken, &output)
        return taken
    }

    /// Whether a heartbeat is due; throws when the peer has been silent for too long.
    mutating func tick(nowMs: Int64) throws(LinkError) -> Bool {
        if let failure { throw failure }
        guard nowMs - lastReceivedMs < LinkLimits.silenceMsMax else {
            throw fail(LinkError(.silent, "nothing heard for \(nowMs - lastReceivedMs) ms"))
        }
        return nowMs - lastSentMs >= LinkLimits.heartbeatMs && output.isEmpty
    }
}
