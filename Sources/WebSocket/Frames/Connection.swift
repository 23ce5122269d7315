import Wire

/// RFC 6455 after the handshake, as a value: bytes in, events and bytes out, for either role.
///
///     var offset = 0
///     while let event = try connection.next(bytes, &offset, into: &message) { … }
///     stream.write(connection.takeOutput())
///
/// `message` is scratch that the caller keeps for all its connections: between messages a connection holds no buffer, so an
/// idle one costs this struct and nothing else. Pings are answered and the close handshake is done in here; what has to be
/// sent for that lies in the output. A thrown violation has put a close frame there: write it, then close the stream.
public struct Connection: Sendable {
    public enum Role: Sendable { case server, client }

    public struct Limits: Sendable {
        public var messageBytesMax: Int
        /// A message in more pieces than this is refused: each costs work, and an empty one costs its sender nothing.
        public var fragmentsMax: Int

        public init(messageBytesMax: Int = 64 << 10, fragmentsMax: Int = 64) {
            self.messageBytesMax = messageBytesMax
            self.fragmentsMax = fragmentsMax
        }
    }

    public enum Event: Hashable, Sendable {
        /// A whole message is in `message`. A compressed one is to be inflated (and, if text, checked) by the caller.
        case message(Opcode, isCompressed: Bool)
        /// A pong's payload is in `message`; pings have been answered.
        case ping, pong
        /// The peer has closed, or has answered our close: nothing comes after. `nil` when it gave no code.
        case closed(CloseCode?)
    }

    private enum Phase: UInt8 {
        case header
        case payload
        /// A close frame has come or the peer has violated the protocol: nothing more is read.
        case ended
    }

    private let role: Role
    private let mayCompress: Bool
    private var phase = Phase.header
    /// Our close frame is in the output or has been.
    public private(set) var isCloseSent = false

    // The frame under way.
    private var header = HeaderBuffer()
    private var opcode = Opcode.continuation
    private var isFinal = false
    private var mask: UInt32 = 0
    private var left = 0

    // The message under way, of one or more frames.
    private var messageOpcode = Opcode.continuation
    private var isMessageCompressed = false
    private var fragmentCount: UInt16 = 0
    private var utf8 = UTF8Validator()
    private var partial: [UInt8] = []
    private var control: [UInt8] = []
    private var output: [UInt8] = []

    /// - Parameter mayCompress: permessage-deflate was agreed on in the handshake.
    public init(role: Role, mayCompress: Bool = false) {
        self.role = role
        self.mayCompress = mayCompress
    }

    /// Nothing but a whole number of messages has arrived.
    public var isIdle: Bool {
        phase == .header && header.count == 0 && messageOpcode == .continuation && output.isEmpty
    }

    public var hasEnded: Bool { phase == .ended }

    /// What has to be written now.
    public mutating func takeOutput() -> [UInt8] {
        guard !output.isEmpty else { return [] }
        var taken: [UInt8] = []
        swap(&taken, &output)
        return taken
    }

    /// Starts the close handshake, once. Messages may still arrive until the peer answers; none may be sent any more.
    public mutating func close(_ code: CloseCode, reason: String = "", mask: UInt32? = nil) {
        guard !isCloseSent else { return }
        isCloseSent = true
        append(.close, Frame.closePayload(code, reason), mask)
    }

    // MARK: Receiving

    /// The next event from `offset` on, or `nil` when more bytes are needed.
    public mutating func next(
        _ input: Span<UInt8>, _ offset: inout Int, into message: inout [UInt8], limits: Limits
    ) throws(ProtocolViolation) -> Event? {
        do {
            while true {
                switch phase {
                case .ended:
                    offset = input.count
                    return nil
                case .header:
                    guard header.take(input, &offset) else { return nil }
                    try beginFrame(limits)
                case .payload:
                    if let event = try takePayload(input, &offset, into: &message) { return event }
                    if phase == .payload { return nil }
                }
            }
        } catch {
            phase = .ended
            (partial, control) = ([], [])
            close(error.closeCode, reason: error.description)
            throw error
        }
    }

    private mutating func beginFrame(_ limits: Limits) throws(ProtocolViolation) {
        let first = header.bytes.0
        guard let opcode = Opcode(rawValue: first & 0x0f) else {
            throw violation("reserved opcode \(first & 0x0f)")
        }
        guard first & 0x30 == 0 else { throw violation("reserved bit set") }
        let isCompressed = first & 0x40 != 0
        isFinal = first & 0x80 != 0
        guard header.isMasked == (role == .server) else {
            throw violation(role == .server ? "frame without mask" : "masked frame")
        }
        guard let count = header.payloadCount else { throw violation("length not in its shortest form") }
        if opcode.isControl {
            guard isFinal else { throw violation("fragmented control frame") }
            guard count <= Frame.controlPayloadMax else { throw violation("control frame too long") }
            guard !isCompressed else { throw violation("compressed control frame") }
        } else {
            try continueMessage(opcode, isCompressed)
            guard count <= limits.messageBytesMax - partial.count else {
                throw ProtocolViolation(.tooBig, "message over \(limits.messageBytesMax) bytes")
            }
            fragmentCount += 1
            guard Int(fragmentCount) <= limits.fragmentsMax else {
                throw ProtocolViolation(.policyViolation, "message in over \(limits.fragmentsMax) fragments")
            }
        }
        self.opcode = opcode
        mask = header.mask
        left = count
        header.reset()
        phase = .payload
    }

    private mutating func continueMessage(_ opcode: Opcode, _ isCompressed: Bool) throws(ProtocolViolation) {
        if opcode == .continuation {
            guard messageOpcode != .continuation else { throw violation("continuation of nothing") }
            guard !isCompressed else { throw violation("compression bit on a continuation") }
        } else {
            guard messageOpcode == .continuation else { throw violation("new message inside a fragmented one") }
            guard !isCompressed || mayCompress else { throw violation("reserved bit set") }
            messageOpcode = opcode
            isMessageCompressed = isCompressed
            fragmentCount = 0
            utf8 = UTF8Validator()
        }
    }

    private mutating func takePayload(
        _ input: Span<UInt8>, _ offset: inout Int, into message: inout [UInt8]
    ) throws(ProtocolViolation) -> Event? {
        let count = min(left, input.count - offset)
        let piece = input.extracting(offset..<offset + count)
        left -= count
        offset += count
        if opcode.isControl {
            Self.append(piece, to: &control, unmasking: &mask)
            return left == 0 ? try takeControl(into: &message) : nil
        }
        // A message that came whole goes straight to the caller's scratch.
        let isWhole = left == 0 && isFinal && partial.isEmpty
        if isWhole {
            message.removeAll(keepingCapacity: true)
            Self.append(piece, to: &message, unmasking: &mask)
            if isText { try utf8.check(message.span, isEnd: true) }
        } else {
            let before = partial.count
            Self.append(piece, to: &partial, unmasking: &mask)
            if isText {
                var state = utf8
                try state.check(partial.span.extracting(before..<partial.count), isEnd: left == 0 && isFinal)
                utf8 = state
            }
        }
        guard left == 0 else { return nil }
        phase = .header
        guard isFinal else { return nil }
        if !isWhole {
            // The scratch takes the message's buffer, and the connection is left with none.
            message = partial
            partial = []
        }
        defer { messageOpcode = .continuation }
        return .message(messageOpcode, isCompressed: isMessageCompressed)
    }

    private var isText: Bool { messageOpcode == .text && !isMessageCompressed }

    private mutating func takeControl(into message: inout [UInt8]) throws(ProtocolViolation) -> Event? {
        phase = .header
        message.removeAll(keepingCapacity: true)
        message.append(control.span)
        control = []
        switch opcode {
        case .ping:
            // Every ping is answered: no answer is longer than its ping, so a flood cannot make us send more than it sends.
            if !isCloseSent { append(.pong, message, nil) }
            return .ping
        case .pong:
            return .pong
        default:
            return try takeClose(message)
        }
    }

    private mutating func takeClose(_ payload: [UInt8]) throws(ProtocolViolation) -> Event {
        guard payload.count != 1 else { throw violation("close frame with half a code") }
        var code: CloseCode?
        if payload.count >= 2 {
            let given = CloseCode(rawValue: UInt16(payload[0]) << 8 | UInt16(payload[1]))
            guard given.mayBeSent else { throw violation("close code \(given)") }
            var reason = UTF8Validator()
            guard reason.accept(payload.span.extracting(2..<payload.count)), reason.isComplete else {
                throw ProtocolViolation(.invalidPayload, "close reason that is not UTF-8")
            }
            code = given
        }
        phase = .ended
        (partial, messageOpcode) = ([], .continuation)
        if !isCloseSent {
            isCloseSent = true
            append(.close, Frame.closePayload(code, ""), nil)
        }
        return .closed(code)
    }

    /// A frame without a mask has the key zero.
    private static func append(_ piece: Span<UInt8>, to bytes: inout [UInt8], unmasking mask: inout UInt32) {
        guard mask != 0, !piece.isEmpty else { return bytes.append(piece) }
        let key = mask
        let count = piece.count
        bytes.append(addingCapacity: count) { output in
            var index = 0
            while index &+ 4 <= count {
                output.append(piece[index] ^ UInt8(truncatingIfNeeded: key))
                output.append(piece[index &+ 1] ^ UInt8(truncatingIfNeeded: key >> 8))
                output.append(piece[index &+ 2] ^ UInt8(truncatingIfNeeded: key >> 16))
                output.append(piece[index &+ 3] ^ UInt8(truncatingIfNeeded: key >> 24))
                index &+= 4
            }
            while index < count {
                output.append(piece[index] ^ UInt8(truncatingIfNeeded: key >> (UInt32(index & 3) * 8)))
                index &+= 1
            }
        }
        // The next piece of this frame goes on where this one stopped.
        let turn = UInt32(count & 3) * 8
        if turn > 0 { mask = key >> turn | key << (32 - turn) }
    }

    // MARK: Sending

    private mutating func append(_ opcode: Opcode, _ payload: [UInt8], _ mask: UInt32?) {
        let mask = role == .client ? mask ?? UInt32.random(in: .min ... .max) : nil
        Frame.append(to: &output, opcode, payload.span, mask: mask)
    }

    private func violation(_ description: String) -> ProtocolViolation {
        ProtocolViolation(.protocolError, description)
    }
}

extension UTF8Validator {
    fileprivate mutating func check(_ bytes: Span<UInt8>, isEnd: Bool) throws(ProtocolViolation) {
        guard accept(bytes), !isEnd || isComplete else {
            throw ProtocolViolation(.invalidPayload, "text that is not UTF-8")
        }
    }
}

/// A frame's header as it arrives: at most 14 bytes, held in the connection itself.
struct HeaderBuffer: Sendable {
    private(set) var bytes: (UInt8, UInt8) = (0, 0)
    private(set) var count: UInt8 = 0
    /// The bytes after the first two, the latest lowest.
    private var length: UInt64 = 0
    private var key: UInt32 = 0

    var isMasked: Bool { bytes.1 & 0x80 != 0 }

    private var lengthCount: UInt8 {
        switch bytes.1 & 0x7f {
        case 126: 2
        case 127: 8
        default: 0
        }
    }

    /// Whether the header is complete.
    mutating func take(_ input: Span<UInt8>, _ offset: inout Int) -> Bool {
        while count < 2 || count < 2 + lengthCount + (isMasked ? 4 : 0) {
            guard offset < input.count else { return false }
            let byte = input[offset]
            offset += 1
            switch count {
            case 0: bytes.0 = byte
            case 1: bytes.1 = byte
            case _ where count < 2 + lengthCount: length = length << 8 | UInt64(byte)
            default: key = key >> 8 | UInt32(byte) << 24
            }
            count += 1
        }
        return true
    }

    /// `nil` when the length is not in its shortest form or has its top bit set (5.2).
    var payloadCount: Int? {
        switch lengthCount {
        case 2: length > 125 ? Int(length) : nil
        case 8: length > 0xffff && length >> 63 == 0 ? Int(length) : nil
        default: Int(bytes.1 & 0x7f)
        }
    }

    var mask: UInt32 { key }

    mutating func reset() {
        count = 0
        length = 0
        key = 0
    }
}
