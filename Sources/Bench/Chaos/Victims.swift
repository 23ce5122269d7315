import System

/// The processes of a running `fanout up`, by name.
struct Victims {
    let parent: Int32

    /// The children now: they change with every restart.
    func processes() -> [(name: String, id: Int32)] {
        guard let text = try? File.text(of: "/proc/\(parent)/task/\(parent)/children") else { return [] }
        return text.split(separator: " ").compactMap { part in
            guard let id = Int32(part), let line = try? File.text(of: "/proc/\(id)/cmdline") else { return nil }
            let arguments = line.split(separator: "\0")
            guard let program = arguments.first else { return nil }
            if program.hasSuffix("/postgres") { return ("postgres", id) }
            return arguments.count > 1 ? (String(arguments[1]), id) : nil
        }
    }
}
