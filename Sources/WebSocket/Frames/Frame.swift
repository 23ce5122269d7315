import Wire

/// RFC 6455, section 11.8.
public enum Opcode: UInt8, Sendable {
    case continuation = 0x0
    case text = 0x1
    case binary = 0x2
    case close = 0x8
    case ping = 0x9
    case pong = 0xa

    public var isControl: Bool { rawValue >= 0x8 }
}

/// The numbers of section 7.4, and ours.
public struct CloseCode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let normal = CloseCode(rawValue: 1000)
    public static let goingAway = CloseCode(rawValue: 1001)
    public static let protocolError = CloseCode(rawValue: 1002)
    public static let unsupportedData = CloseCode(rawValue: 1003)
    public static let invalidPayload = CloseCode(rawValue: 1007)
    public static let policyViolation = CloseCode(rawValue: 1008)
    public static let tooBig = CloseCode(rawValue: 1009)
    public static let serviceRestart = CloseCode(rawValue: 1012)
    public static let tryAgainLater = CloseCode(rawValue: 1013)

    /// Codes that may stand in a frame: 1005, 1006 and 1015 only ever name what was seen, 1004 is reserved, below 1000
    /// and above 4999 nothing is defined.
    public var mayBeSent: Bool {
        switch rawValue {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }

    public var description: String { "\(rawValue)" }
}

/// Why the peer's bytes ended the connection, and the code that tells it so.
public struct ProtocolViolation: Error, Hashable, Sendable, CustomStringConvertible {
    public let closeCode: CloseCode
    public let description: String

    public init(_ closeCode: CloseCode, _ description: String) {
        self.closeCode = closeCode
        self.description = description
    }
}

/// Writing frames. A server's frame carries no mask, so one array serves any number of recipients.
public enum Frame {
    /// Payloads above this are never sent in control frames (section 5.5).
    public static let controlPayloadMax = 125
    /// The longest header, mask included.
    public static let headerCountMax = 14

    /// A whole unfragmented, unmasked message.
    public static func encode(_ opcode: Opcode, _ payload: Span<UInt8>, isCompressed: Bool = false) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(payload.count + 10)
        appendHeader(to: &output, opcode, count: payload.count, isCompressed: isCompressed, mask: nil)
        output.append(payload)
        return output
    }

    public static func encode(_ opcode: Opcode, _ payload: [UInt8]) -> [UInt8] { encode(opcode, payload.span) }

    public static func encode(close code: CloseCode?, reason: String = "") -> [UInt8] {
        encode(.close, closePayload(code, reason))
    }

    /// Appends a frame; a client masks it with a key that must be unpredictable and fresh (section 5.3).
    public static func append(
        to output: inout [UInt8], _ opcode: Opcode, _ payload: Span<UInt8>, isFinal: Bool = true,
        isCompressed: Bool = false, mask: UInt32?
    ) {
        appendHeader(
            to: &output, opcode, count: payload.count, isFinal: isFinal, isCompressed: isCompressed, mask: mask)
        guard let mask else { return output.append(payload) }
        output.append(addingCapacity: payload.count) { output in
            var key = mask
            for index in payload.indices {
                output.append(payload[index] ^ UInt8(truncatingIfNeeded: key))
                key = key >> 8 | key << 24
            }
        }
    }

    static func closePayload(_ code: CloseCode?, _ reason: String) -> [UInt8] {
        guard let code else { return [] }
        var payload = [UInt8(code.rawValue >> 8), UInt8(code.rawValue & 0xff)]
        var reason = Substring(reason)
        while reason.utf8.count > controlPayloadMax - 2 { reason = reason.dropLast() }
        payload += reason.utf8
        return payload
    }

    /// The mask's first byte on the wire is its lowest here.
    static func appendHeader(
        to output: inout [UInt8], _ opcode: Opcode, count: Int, isFinal: Bool = true, isCompressed: Bool,
        mask: UInt32?
    ) {
        output.append(opcode.rawValue | (isFinal ? 0x80 : 0) | (isCompressed ? 0x40 : 0))
        let maskBit: UInt8 = mask == nil ? 0 : 0x80
        switch count {
        case 0...125: output.append(maskBit | UInt8(count))
        case 126...0xffff:
            output.append(maskBit | 126)
            output.append(UInt8(count >> 8))
            output.append(UInt8(count & 0xff))
        default:
            output.append(maskBit | 127)
            for shift in stride(from: 56, through: 0, by: -8) {
                output.append(UInt8(truncatingIfNeeded: count >> shift))
            }
        }
        if let mask {
            for shift in stride(from: 0, through: 24, by: 8) {
                output.append(UInt8(truncatingIfNeeded: mask >> UInt32(shift)))
            }
        }
    }
}
