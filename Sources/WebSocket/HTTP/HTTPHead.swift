import Wire

/// The header fields of a message: the head's bytes as they came, and where each name and value stands in them.
/// Names are lower-cased in place, so a look-up compares bytes.
public struct HTTPFields: Sendable, Equatable {
    struct Field: Sendable, Equatable {
        var name: Range<Int>
        var value: Range<Int>
    }

    let bytes: [UInt8]
    let fields: [Field]

    public var count: Int { fields.count }

    /// The value of the first field of this (lower-case) name.
    public subscript(name: String) -> String? {
        for field in fields where bytes.span.extracting(field.name).elementsEqual(name) {
            return String(showing: bytes.span.extracting(field.value))
        }
        return nil
    }

    /// The values of all fields of this (lower-case) name, in order.
    public func all(_ name: String) -> [String] {
        fields.filter { bytes.span.extracting($0.name).elementsEqual(name) }
            .map { String(showing: bytes.span.extracting($0.value)) }
    }

    public func count(of name: String) -> Int {
        fields.reduce(0) { $0 + (bytes.span.extracting($1.name).elementsEqual(name) ? 1 : 0) }
    }

    /// The elements of a comma-separated list, over all fields of this name.
    public func list(_ name: String) -> [String] {
        all(name).flatMap { value in
            value.utf8.split(separator: 0x2c, omittingEmptySubsequences: true).map { Substring($0).trimmedHTTP }
        }.filter { !$0.isEmpty }
    }

    /// Whether a comma-separated list has this element, in any case.
    public func list(_ name: String, contains token: String) -> Bool {
        list(name).contains { $0.lowercased() == token }
    }

    /// Every name and value, for logs and clients.
    public var all: [(name: String, value: String)] {
        fields.map {
            (String(showing: bytes.span.extracting($0.name)), String(showing: bytes.span.extracting($0.value)))
        }
    }
}

extension Substring {
    /// Without the blanks that HTTP allows around values.
    var trimmedHTTP: String {
        var text = self
        while let first = text.utf8.first, first == 0x20 || first == 0x09 { text = text.dropFirst() }
        while let last = text.utf8.last, last == 0x20 || last == 0x09 { text = text.dropLast() }
        return String(text)
    }
}

/// A complete request.
public struct HTTPRequest: Sendable, Equatable {
    public let method: String
    /// As it came: path and query.
    public let target: String
    public let fields: HTTPFields
    /// 0 or 1, the digit after `HTTP/1.`.
    public let minorVersion: Int
    public internal(set) var body: [UInt8] = []

    /// The target up to its query.
    public var path: Substring { target.prefix { $0 != "?" } }

    /// The path's segments between its slashes, percent-decoded; `nil` when an escape is malformed or hides a slash or
    /// something that is not UTF-8, so that no two spellings of one path are treated differently.
    public var segments: [String]? {
        var segments: [String] = []
        for part in path.split(separator: "/", omittingEmptySubsequences: true) {
            guard let segment = PercentCoding.decode(part.utf8, plusIsSpace: false),
                !segment.utf8.contains(where: { $0 == 0x2f || $0 == 0 })
            else { return nil }
            segments.append(segment)
        }
        return segments
    }

    /// The first value of a query parameter, decoded; `nil` when there is none or it is malformed.
    public func query(_ name: String) -> String? {
        guard let mark = target.utf8.firstIndex(of: 0x3f) else { return nil }
        for pair in target[target.index(after: mark)...].utf8.split(separator: 0x26) {
            let parts = pair.split(separator: 0x3d, maxSplits: 1, omittingEmptySubsequences: false)
            if PercentCoding.decode(parts[0], plusIsSpace: true) == name {
                return parts.count == 2 ? PercentCoding.decode(parts[1], plusIsSpace: true) : ""
            }
        }
        return nil
    }

    /// Whether the connection may carry another request after this one.
    public var keepsAlive: Bool {
        if fields.list("connection", contains: "close") { return false }
        return minorVersion == 1 || fields.list("connection", contains: "keep-alive")
    }

    public var isUpgrade: Bool {
        fields.list("connection", contains: "upgrade") && fields.list("upgrade", contains: "websocket")
    }
}

/// A complete response, for clients.
public struct HTTPReply: Sendable, Equatable {
    public let status: Int
    public let fields: HTTPFields
    public internal(set) var body: [UInt8] = []
}

public enum PercentCoding {
    /// `nil` for a malformed escape or what is not UTF-8 after decoding.
    public static func decode(_ text: some Sequence<UInt8>, plusIsSpace: Bool) -> String? {
        var decoded: [UInt8] = []
        var iterator = text.makeIterator()
        while let byte = iterator.next() {
            if byte == 0x25 {
                guard let high = iterator.next().flatMap(hexValue), let low = iterator.next().flatMap(hexValue) else {
                    return nil
                }
                decoded.append(high << 4 | low)
            } else {
                decoded.append(byte == 0x2b && plusIsSpace ? 0x20 : byte)
            }
        }
        return String(validating: decoded, as: UTF8.self)
    }

    /// Everything but unreserved characters (RFC 3986) is escaped.
    public static func encode(_ text: String, keeping kept: String = "") -> String {
        var encoded = ""
        for byte in text.utf8 {
            switch byte {
            case 0x41...0x5a, 0x61...0x7a, 0x30...0x39, 0x2d, 0x2e, 0x5f, 0x7e:
                encoded.unicodeScalars.append(Unicode.Scalar(byte))
            case _ where kept.utf8.contains(byte):
                encoded.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let digits = Array("0123456789ABCDEF".unicodeScalars)
                encoded.unicodeScalars.append("%")
                encoded.unicodeScalars.append(digits[Int(byte >> 4)])
                encoded.unicodeScalars.append(digits[Int(byte & 15)])
            }
        }
        return encoded
    }

    static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }
}
