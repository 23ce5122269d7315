/// What happens to a stream. Every call comes on the loop's thread.
public protocol StreamDelegate: AnyObject {
    /// Bytes arrived. The span is the loop's buffer, valid during the call only: keep a copy of what is incomplete.
    func stream(_ stream: Stream, received bytes: Span<UInt8>)
    /// A stream made by `connect`, or one with TLS, can carry data now. What was written earlier leaves now.
    func streamConnected(_ stream: Stream)
    /// The peer will send no more. Unless implemented, the stream closes once everything queued has left.
    func streamEnded(_ stream: Stream)
    /// Everything queued has left, after the socket had been full or more than 4 MiB had been queued: time to produce
    /// more.
    func streamDrained(_ stream: Stream)
    /// The stream is closed: once for every stream, the last call, at the end of a tick and so never from inside a
    /// call on the stream. The stream lets go of its delegate.
    func streamClosed(_ stream: Stream, reason: CloseReason)
}

extension StreamDelegate {
    public func streamConnected(_ stream: Stream) {}
    public func streamEnded(_ stream: Stream) { stream.closeAfterFlush() }
    public func streamDrained(_ stream: Stream) {}
}

/// Why a stream is closed.
public enum CloseReason: Sendable, Equatable {
    /// `close()` or `closeAfterFlush()` was called.
    case local
    /// The peer ended its side and everything queued has been sent.
    case peer
    /// The connection failed: reset, timed out, refused, TLS.
    case failed(SystemError)
}

/// What became of a write.
public enum WriteResult: Sendable, Equatable {
    case queued
    /// Nothing of it was queued, since it would exceed the stream's limit of bytes or fragments: the peer is too slow.
    case overflow
    /// The stream is closed or closing, and the bytes were dropped.
    case closed
}

/// How much a stream may hold back for a slow peer.
public struct StreamLimits: Sendable {
    public var bytes: UInt32
    /// A peer that takes nothing while many small fragments queue costs memory for each, whatever their bytes.
    public var fragments: UInt32

    public init(bytes: UInt32 = 8 << 20, fragments: UInt32 = 16_384) {
        self.bytes = bytes
        self.fragments = fragments
    }
}
