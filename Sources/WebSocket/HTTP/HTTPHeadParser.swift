import Wire

/// Reads a head (start line and fields) whose end has been found. Strict where leniency lets two parsers on a path disagree
/// about where a message ends: no bare CR or LF, no blank before a colon, no folded line, no control character.
struct HTTPHeadParser {
    /// More fields than this are refused: each costs memory whatever its length.
    static let fieldsMax = 64

    /// The head without the empty line that ended it, but with the last field's CRLF.
    private(set) var bytes: [UInt8]
    private var position = 0

    init(_ bytes: consuming [UInt8]) { self.bytes = bytes }

    mutating func request(targetMax: Int) throws(HTTPError) -> HTTPRequest {
        let line = try nextLine(.badStartLine)
        guard let first = bytes[line].firstIndex(of: 0x20), first > line.lowerBound,
            let last = bytes[line].lastIndex(of: 0x20), last > first + 1
        else { throw HTTPError(.badStartLine) }
        let method = line.lowerBound..<first
        let target = first + 1..<last
        guard bytes[method].allSatisfy(Self.isToken), method.count <= 16 else { throw HTTPError(.badStartLine) }
        guard target.count <= targetMax else { throw HTTPError(.targetTooLong) }
        // Only the origin form: this server is nobody's proxy, and `*` asks for nothing it has. No blank, control or
        // non-ASCII byte may hide in a target.
        guard bytes[target.lowerBound] == 0x2f, bytes[target].allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != 0x23 })
        else { throw HTTPError(.badStartLine) }
        let minor = try version(last + 1..<line.upperBound)
        let fields = try fields()
        let methodText = String(showing: bytes.span.extracting(method))
        let targetText = String(showing: bytes.span.extracting(target))
        return HTTPRequest(method: methodText, target: targetText, fields: fields, minorVersion: minor)
    }

    mutating func reply() throws(HTTPError) -> HTTPReply {
        let line = try nextLine(.badStartLine)
        guard line.count >= 12, bytes[line.lowerBound + 8] == 0x20 else { throw HTTPError(.badStartLine) }
        _ = try version(line.lowerBound..<line.lowerBound + 8)
        var status = 0
        for index in line.lowerBound + 9..<line.lowerBound + 12 {
            guard case let digit = bytes[index] &- 0x30, digit < 10 else { throw HTTPError(.badStartLine) }
            status = status * 10 + Int(digit)
        }
        guard status >= 100, line.count == 12 || bytes[line.lowerBound + 12] == 0x20 else {
            throw HTTPError(.badStartLine)
        }
        return HTTPReply(status: status, fields: try fields())
    }

    private func version(_ range: Range<Int>) throws(HTTPError) -> Int {
        let text = bytes.span.extracting(range)
        guard text.count == 8, text.extracting(0..<5).elementsEqual("HTTP/"), text[5] &- 0x30 < 10, text[6] == 0x2e,
            text[7] &- 0x30 < 10
        else { throw HTTPError(.badStartLine) }
        guard text[5] == 0x31, text[7] <= 0x31 else { throw HTTPError(.unsupportedVersion) }
        return Int(text[7] - 0x30)
    }

    private mutating func fields() throws(HTTPError) -> HTTPFields {
        var fields: [HTTPFields.Field] = []
        fields.reserveCapacity(12)
        while position < bytes.count {
            let line = try nextLine(.badHeader)
            guard fields.count < Self.fieldsMax else { throw HTTPError(.headTooLarge) }
            guard let colon = bytes[line].firstIndex(of: 0x3a), colon > line.lowerBound else {
                throw HTTPError(.badHeader)
            }
            for index in line.lowerBound..<colon {
                let byte = bytes[index]
                guard Self.isToken(byte) else { throw HTTPError(.badHeader) }
                if byte &- 0x41 < 26 { bytes[index] = byte | 0x20 }
            }
            var value = colon + 1..<line.upperBound
            while let first = bytes[value].first, first == 0x20 || first == 0x09 { value = value.dropFirst() }
            while let last = bytes[value].last, last == 0x20 || last == 0x09 { value = value.dropLast() }
            guard bytes[value].allSatisfy({ $0 >= 0x20 && $0 != 0x7f || $0 == 0x09 }) else {
                throw HTTPError(.badHeader)
            }
            fields.append(HTTPFields.Field(name: line.lowerBound..<colon, value: value))
        }
        return HTTPFields(bytes: bytes, fields: fields)
    }

    /// The next line without its CRLF.
    private mutating func nextLine(_ code: HTTPError.Code) throws(HTTPError) -> Range<Int> {
        let start = position
        while position < bytes.count {
            let byte = bytes[position]
            if byte == 0x0d {
                guard position + 1 < bytes.count, bytes[position + 1] == 0x0a else { throw HTTPError(code) }
                position += 2
                return start..<position - 2
            }
            guard byte != 0x0a else { throw HTTPError(code) }
            position += 1
        }
        throw HTTPError(code)
    }

    static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
        case 0x21, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2a, 0x2b, 0x2d, 0x2e, 0x5e, 0x5f, 0x60, 0x7c, 0x7e: true
        default: false
        }
    }
}
