/// A mistake in how the program was called: one line that says what is wrong and what would be right.
public struct UsageError: Error, Equatable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}

/// The settings of one command, from its flags, then the environment, then a file, then what is standard.
///
/// All values have been checked when this exists, so the getters cannot fail: asking for an option that the command
/// did not declare, or as another kind, is a mistake in the program.
public struct Options: Sendable {
    private let declared: [String: Option]
    private var values: [String: [String]] = [:]
    /// What is not an option, in order.
    public private(set) var operands: [String] = []
    /// The options that the arguments themselves name.
    public private(set) var given: Set<String> = []

    /// - Parameters:
    ///   - arguments: what follows the command's name.
    ///   - environment: only names that begin with `FANOUT_` are looked at.
    ///   - file: the configuration file, if one was named: lines of `name = value`; lines that begin with `#` are comments.
    ///     A file is shared by all commands, so a setting in it that this command does not know is ignored, as long as
    ///     it is in `known`.
    public init(
        _ declared: [Option], arguments: [String], environment: [String: String] = [:],
        file: (name: String, text: String)? = nil, known: [Option] = []
    ) throws(UsageError) {
        self.declared = Dictionary(declared.map { ($0.name, $0) }) { first, _ in first }
        if let file { try read(file: file.text, named: file.name, known: Set((declared + known).map(\.name))) }
        for option in declared {
            if let value = environment[option.environmentName] {
                let parts = option.isRepeated ? value.split(separator: ",").map(String.init) : [value]
                try set(option, parts, source: option.environmentName)
            }
        }
        try read(arguments: arguments)
        for option in declared where values[option.name] == nil {
            if let standard = option.standard { try set(option, [standard], source: "--\(option.name)") }
        }
    }

    private mutating func read(arguments: [String]) throws(UsageError) {
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            if argument == "--" {
                operands += arguments[index...]
                return
            }
            guard argument.hasPrefix("--") else {
                if argument.hasPrefix("-"), argument != "-" { throw UsageError("unknown option \(argument)") }
                operands.append(argument)
                continue
            }
            let body = argument.dropFirst(2)
            let name = String(body.prefix { $0 != "=" })
            guard let option = declared[name] else { throw UsageError(unknown(name)) }
            let value: String
            if body.count > name.count {
                value = String(body.dropFirst(name.count + 1))
            } else if case .flag = option.kind {
                value = "true"
            } else if index < arguments.count {
                value = arguments[index]
                index += 1
            } else {
                throw UsageError("--\(name) needs a value: --\(name) \(option.placeholder ?? "")")
            }
            // A flag replaces what environment and file say; a repeated one adds to the earlier flags.
            let earlier = option.isRepeated && given.contains(name) ? values[name] ?? [] : []
            try set(option, earlier + [value], source: "--\(name)")
            given.insert(name)
        }
    }

    private mutating func read(file: String, named fileName: String, known: Set<String>) throws(UsageError) {
        var seen: [String: [String]] = [:]
        for (number, line) in file.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let text = line.trimmed
            if text.isEmpty || text.hasPrefix("#") { continue }
            let place = "\(fileName), line \(number + 1):"
            guard let equals = text.firstIndex(of: "=") else {
                throw UsageError("\(place) expected name = value")
            }
            let name = String(text[..<equals].trimmed)
            guard known.contains(name) else {
                throw UsageError("\(place) unknown setting \(name)")
            }
            guard let option = declared[name] else { continue }
            seen[name, default: []].append(String(text[text.index(after: equals)...].trimmed))
            try set(option, seen[name] ?? [], source: "\(place) \(name)")
        }
    }

    private mutating func set(_ option: Option, _ parts: [String], source: String) throws(UsageError) {
        for part in parts {
            guard let complaint = option.complaint(about: part) else { continue }
            throw UsageError(
                option.isSecret ? "\(source) \(complaint)" : "\(source) \(complaint), not '\(part.sanitized)'")
        }
        values[option.name] = option.isRepeated ? parts : Array(parts.suffix(1))
    }

    private func unknown(_ name: String) -> String {
        let near = declared.keys.min { name.editDistance(to: $0) < name.editDistance(to: $1) }
        guard let near, name.editDistance(to: near) <= 2 else { return "unknown option --\(name.sanitized)" }
        return "unknown option --\(name.sanitized) (did you mean --\(near)?)"
    }

    // MARK: Reading them

    public func has(_ name: String) -> Bool { values[name] != nil }
    public func flag(_ name: String) -> Bool { value(name) == "true" }
    public func string(_ name: String) -> String? { value(name) }
    public func strings(_ name: String) -> [String] { declaredValues(name) }
    public func integer(_ name: String) -> Int? { value(name).flatMap { Int($0) } }
    public func durationMs(_ name: String) -> Int? { value(name).flatMap { Quantity.durationMs($0) } }
    public func bytes(_ name: String) -> Int? { value(name).flatMap { Quantity.bytes($0) } }
    public func address(_ name: String) -> Address? { value(name).flatMap { Address($0) } }

    public func keyValues(_ name: String) -> [(key: String, value: String)] {
        declaredValues(name).map { text in
            let key = text.prefix { $0 != "=" }
            return (String(key), String(text.dropFirst(key.count + 1)))
        }
    }

    /// A setting that the command cannot do without.
    public func require(_ name: String) throws(UsageError) -> String {
        guard let value = value(name) else {
            throw UsageError("--\(name) is required: --\(name) \(declared[name]?.placeholder ?? "")")
        }
        return value
    }

    private func value(_ name: String) -> String? { declaredValues(name).last }

    private func declaredValues(_ name: String) -> [String] {
        precondition(declared[name] != nil, "the command does not declare --\(name)")
        return values[name] ?? []
    }
}

extension Substring {
    var trimmed: Substring {
        var text = self
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return text
    }
}

extension String {
    func editDistance(to other: String) -> Int {
        let (left, right) = (Array(utf8), Array(other.utf8))
        var row = Array(0...right.count)
        for (i, byte) in left.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, candidate) in right.enumerated() {
                let substitution = diagonal + (byte == candidate ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = Swift.min(substitution, row[j] + 1, row[j + 1] + 1)
            }
        }
        return row[right.count]
    }
}
