/// One setting of a command: `--name VALUE`, `FANOUT_NAME`, or `name = VALUE` in a file.
public struct Option: Sendable {
    /// What values are allowed. They are checked when they are read, so that a wrong one is reported before anything
    /// starts.
    public enum Kind: Sendable {
        case flag
        case string(String)
        case integer(ClosedRange<Int>)
        /// A time such as `250ms`, `5s`, `10m`, `2h` or `30d`.
        case duration
        /// A size such as `64KiB`, `16MiB` or `1GiB`; a bare number is bytes.
        case size
        /// `host:port`; a port of 0 lets the system choose.
        case address
        /// `key=value`, may be given many times.
        case keyValue
        case choice([String])
    }

    public let name: String
    public let kind: Kind
    public let help: String
    public let standard: String?
    public let isRepeated: Bool
    /// Never shown, not even in an error about itself.
    public let isSecret: Bool

    public init(
        _ name: String, _ kind: Kind, _ help: String, standard: String? = nil, isRepeated: Bool = false,
        isSecret: Bool = false
    ) {
        self.name = name
        self.kind = kind
        self.help = help
        self.standard = standard
        self.isSecret = isSecret
        if case .keyValue = kind { self.isRepeated = true } else { self.isRepeated = isRepeated }
    }

    /// `FANOUT_KAFKA_PROPERTY` for `kafka-property`.
    public var environmentName: String {
        "FANOUT_" + name.uppercased().replacing("-", with: "_")
    }

    /// What stands for the value in help; `nil` for a flag.
    public var placeholder: String? {
        switch kind {
        case .flag: nil
        case .string(let placeholder): placeholder
        case .integer: "N"
        case .duration: "TIME"
        case .size: "SIZE"
        case .address: "HOST:PORT"
        case .keyValue: "KEY=VALUE"
        case .choice(let choices): choices.joined(separator: "|")
        }
    }

    /// Why a value is not allowed, or `nil`.
    func complaint(about value: String) -> String? {
        switch kind {
        case .flag:
            ["true", "false"].contains(value) ? nil : "must be true or false"
        case .string:
            value.isEmpty ? "must not be empty" : nil
        case .integer(let range):
            if let number = Int(value), range.contains(number) {
                nil
            } else if range.upperBound == .max {
                "must be a whole number of at least \(range.lowerBound)"
            } else {
                "must be a whole number from \(range.lowerBound) to \(range.upperBound)"
            }
        case .duration:
            Quantity.durationMs(value) == nil ? "must be a time such as 250ms, 5s, 10m, 2h or 30d" : nil
        case .size:
            Quantity.bytes(value) == nil ? "must be a size such as 64KiB, 16MiB or 1GiB" : nil
        case .address:
            Address(value) == nil ? "must be HOST:PORT" : nil
        case .keyValue:
            (value.firstIndex(of: "=").map { $0 > value.startIndex } ?? false) ? nil : "must be KEY=VALUE"
        case .choice(let choices):
            choices.contains(value) ? nil : "must be one of \(choices.joined(separator: ", "))"
        }
    }
}

/// A host and a port; IPv6 hosts stand in brackets.
public struct Address: Hashable, Sendable, CustomStringConvertible {
    public var host: String
    public var port: UInt16

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty else { return nil }
        self.init(host: String(host), port: port)
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Numbers with units, as people write them.
public enum Quantity {
    public static func durationMs(_ text: String) -> Int? {
        scaled(text, units: [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)])
    }

    public static func bytes(_ text: String) -> Int? {
        scaled(text, units: [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("", 1)])
    }

    private static func scaled(_ text: String, units: [(suffix: String, factor: Int)]) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = Int(digits), let unit = units.first(where: { $0.suffix == text.dropFirst(digits.count) })
        else {
            return nil
        }
        let (product, overflow) = number.multipliedReportingOverflow(by: unit.factor)
        return overflow ? nil : product
    }
}
