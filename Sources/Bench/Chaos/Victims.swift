import System

/// The processes of a running `fanout up`, by name.
struct Victims {
    let parent: Int32

    struct Victim {
        let name: String
        let id: Int32
        /// Itself and those it has started: Postgres serves each of its clients with a process.
        let family: [Int32]

        /// How it was started; nil if it is gone.
        func invocation() throws -> (program: String, arguments: [String], environment: [String: String])? {
            guard let line = try? File.text(of: "/proc/\(id)/cmdline"),
                let variables = try? File.text(of: "/proc/\(id)/environ")
            else { return nil }
            let words = line.split(separator: "\0", omittingEmptySubsequences: false).dropLast().map(String.init)
            guard let program = words.first else { return nil }
            let pairs = variables.split(separator: "\0").map { variable in
                let sides = variable.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                return (String(sides[0]), sides.count > 1 ? String(sides[1]) : "")
            }
            return (program, Array(words.dropFirst()), Dictionary(pairs) { _, last in last })
        }
    }

    /// The children now: they change with every restart.
    func processes() -> [Victim] {
        Self.children(of: parent).compactMap { id in
            guard let line = try? File.text(of: "/proc/\(id)/cmdline") else { return nil }
            let arguments = line.split(separator: "\0")
            guard let program = arguments.first else { return nil }
            let family = [id] + Self.children(of: id)
            if program.hasSuffix("/postgres") { return Victim(name: "postgres", id: id, family: family) }
            return arguments.count > 1 ? Victim(name: String(arguments[1]), id: id, family: family) : nil
        }
    }

    private static func children(of id: Int32) -> [Int32] {
        let text = (try? File.text(of: "/proc/\(id)/task/\(id)/children")) ?? ""
        return text.split(separator: " ").compactMap { Int32($0) }
    }
}
