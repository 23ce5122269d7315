/// The protocol between a Delivery worker and a chat server ("instance"). The worker connects, both prove that they
/// know the shared secret, and then frames flow in both directions on one ordered byte stream; docs/push-link.md
/// describes every frame. Nothing here owns a socket, a clock or a thread.
public enum LinkLimits {
    /// The protocol version spoken by this build. A worker offers it, the instance answers with the version to use.
    public static let version: UInt16 = 2

    /// A frame is a little-endian u32 length, a type byte and a body; the length counts type and body.
    public static let headerCount = 5

    /// The longest frame either end takes. A peer that announces more is cut off before a byte of it is kept.
    public static let frameCountMax = 1 << 20

    /// The longest frame taken from a peer that has not yet proved anything.
    public static let handshakeFrameCountMax = 512

    /// Lists are cut into frames of at most this many entries, so that no frame holds up the loop for long.
    public static let sessionsPerFrame = 4096
    public static let chatsPerSessionMax = 1024
    public static let nameCountMax = 128

    /// A peer that has sent nothing for this long is taken for dead; heartbeats are sent three times as often.
    public static let silenceMsMax: Int64 = 6_000
    public static let heartbeatMs: Int64 = 2_000
}

/// A chat server's name for one of its sessions. It must not be given to another session while a frame that names the
/// first may still be on its way, or one user would read another's messages: count up, never reuse soon.
public typealias SessionNumber = UInt32

/// Why a link ended. Everything a peer can do wrong is `.protocolViolation` with the place in words.
public struct LinkError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: UInt8, Sendable {
        case protocolViolation = 1
        case unsupportedVersion = 2
        case notAuthentic = 3
        case tooLarge = 4
        case silent = 5
        case closedByPeer = 6
        case tooSlow = 7
        case stopping = 8
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "push link: \(message) (\(code))" }
}
