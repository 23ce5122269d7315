/// Structured logging: a message that is the same every time, and fields that are not.
///
///     log.info("assigned", ["partition": 3, "offset": 1200])
///
/// A `Log` is a value: `log.with(…)` adds fields for everything logged through the copy. What must not be seen by
/// others (passwords, tokens, message texts) is never passed to it.
public struct Log: Sendable {
    public enum Level: Int, Sendable, Comparable, CaseIterable {
        case debug, info, warning, error

        public static func < (left: Level, right: Level) -> Bool { left.rawValue < right.rawValue }

        public var name: String {
            switch self {
            case .debug: "debug"
            case .info: "info"
            case .warning: "warning"
            case .error: "error"
            }
        }
    }

    public enum Format: String, Sendable, CaseIterable {
        /// For people: a line of aligned columns.
        case text
        /// For machines: one JSON object a line.
        case json
    }

    public enum Value: Sendable, Equatable {
        case string(String)
        case int(Int64)
        case double(Double)
        case bool(Bool)
    }

    public typealias Fields = KeyValuePairs<String, Value>

    public var level: Level
    public let format: Format
    private let clock: any Clock
    /// Receives whole lines, with their line feed; called from any thread.
    private let sink: @Sendable ([UInt8]) -> Void
    private var context: [(name: String, value: Value)] = []
    private let component: String

    public init(
        component: String, level: Level = .info, format: Format = .text, clock: any Clock,
        sink: @escaping @Sendable ([UInt8]) -> Void
    ) {
        self.component = component
        self.level = level
        self.format = format
        self.clock = clock
        self.sink = sink
    }

    /// A log that nobody reads.
    public static let none = Log(component: "", level: .error, clock: ManualClock()) { _ in }

    public func with(_ fields: Fields) -> Log {
        var log = self
        log.context += fields.map { (name: $0.key, value: $0.value) }
        return log
    }

    public func debug(_ message: String, _ fields: @autoclosure () -> Fields = [:]) {
        if level <= .debug { write(.debug, message, fields()) }
    }
    public func info(_ message: String, _ fields: @autoclosure () -> Fields = [:]) {
        if level <= .info { write(.info, message, fields()) }
    }
    public func warning(_ message: String, _ fields: @autoclosure () -> Fields = [:]) {
        if level <= .warning { write(.warning, message, fields()) }
    }
    public func error(_ message: String, _ fields: @autoclosure () -> Fields = [:]) {
        write(.error, message, fields())
    }

    private func write(_ level: Level, _ message: String, _ fields: Fields) {
        var line: [UInt8] = []
        line.reserveCapacity(160)
        let all = context + fields.map { (name: $0.key, value: $0.value) }
        switch format {
        case .text: appendText(level, message, all, to: &line)
        case .json: appendJSON(level, message, all, to: &line)
        }
        line.append(0x0a)
        sink(line)
    }

    private func appendText(
        _ level: Level, _ message: String, _ fields: [(name: String, value: Value)], to line: inout [UInt8]
    ) {
        line += CalendarTime(wallMs: clock.wallMs).timeOfDay.utf8
        line += " \(level.name.padded(to: 7)) \(component.padded(to: 9)) ".utf8
        line += message.sanitized.utf8
        for field in fields {
            line += " \(field.name)=".utf8
            switch field.value {
            case .string(let text):
                let mustQuote = text.isEmpty || text.utf8.contains { $0 <= 0x20 || $0 == 0x22 || $0 == 0x3d }
                line += (mustQuote ? "\"\(text.sanitized)\"" : text).utf8
            case .int(let number): line += "\(number)".utf8
            case .double(let number): line += "\(number)".utf8
            case .bool(let flag): line += "\(flag)".utf8
            }
        }
    }

    private func appendJSON(
        _ level: Level, _ message: String, _ fields: [(name: String, value: Value)], to line: inout [UInt8]
    ) {
        line += #"{"ts":\#(clock.wallMs),"level":"\#(level.name)","component":"\#(component)","message":"#.utf8
        line.appendJSONString(message)
        for field in fields {
            line.append(UInt8(ascii: ","))
            line.appendJSONString(field.name)
            line.append(UInt8(ascii: ":"))
            switch field.value {
            case .string(let text): line.appendJSONString(text)
            case .int(let number): line += "\(number)".utf8
            case .double(let number): line += (number.isFinite ? "\(number)" : "null").utf8
            case .bool(let flag): line += "\(flag)".utf8
            }
        }
        line.append(UInt8(ascii: "}"))
    }
}

extension Log.Value: ExpressibleByStringLiteral, ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral,
    ExpressibleByFloatLiteral, ExpressibleByBooleanLiteral
{
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int64) { self = .int(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }

    /// Any whole number, or anything else by its description.
    public init(_ number: some FixedWidthInteger) { self = .int(Int64(truncatingIfNeeded: number)) }
    public init(_ text: String) { self = .string(text) }
    public init(_ error: any Error) { self = .string("\(error)") }
}

extension String {
    /// With blanks behind it, or before it, up to a column's width.
    public func padded(to width: Int, alignedRight: Bool = false) -> String {
        let blanks = String(repeating: " ", count: max(0, width - count))
        return alignedRight ? blanks + self : self + blanks
    }

    /// One line, whatever a peer has put into it: control characters cannot forge lines or drive a terminal.
    var sanitized: String {
        guard utf8.contains(where: { $0 < 0x20 || $0 == 0x7f }) else { return self }
        return String(String.UnicodeScalarView(unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? "?" : $0 }))
    }
}

extension [UInt8] {
    mutating func appendJSONString(_ text: String) {
        append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case 0x22, 0x5c: self += [0x5c, byte]
            case 0x0a: self += [0x5c, UInt8(ascii: "n")]
            case 0..<0x20:
                let digits = Array("0123456789abcdef".utf8)
                self += "\\u00".utf8
                self += [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            default: append(byte)
            }
        }
        append(UInt8(ascii: "\""))
    }
}
