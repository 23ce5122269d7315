internal import CPostgres

/// libpq's connection strings, `host=… dbname=…` and `postgres://…`, as far as people must be told about them.
public enum ConnectionString {
    /// Refuses what libpq cannot parse, without repeating any of it: a mistyped string may show its password anywhere.
    public static func check(_ text: String) throws(PostgresError) {
        _ = try parsed(text)
    }

    /// Where the string leads, for logs and errors: host, port, database and user, never the password.
    public static func shown(_ text: String) -> String {
        guard let settings = try? parsed(text) else { return "an invalid connection string" }
        // An unescaped @ or : in a password makes libpq take its rest for the host or the port.
        if text.contains("://"), text.count(where: { $0 == "@" }) > 1 || settings["port"]?.allSatisfy(\.isPort) == false
        {
            return "a connection string with an unescaped password"
        }
        let shown = ["host", "hostaddr", "port", "dbname", "user", "service"].compactMap { key in
            settings[key].map { "\(key)=\($0)" }
        }
        return shown.isEmpty ? "libpq's defaults" : shown.joined(separator: " ")
    }

    /// The settings that the string itself names.
    static func parsed(_ text: String) throws(PostgresError) -> [String: String] {
        if text.utf8.contains(0) { throw PostgresError(.badInput, "the connection string has a zero byte") }
        // libpq takes a text without `=` and scheme for a database's name.
        if !text.contains("=") && !text.hasPrefix("postgres://") && !text.hasPrefix("postgresql://") {
            return text.isEmpty ? [:] : ["dbname": text]
        }
        var message: UnsafeMutablePointer<CChar>?
        guard let options = unsafe PQconninfoParse(text, &message) else {
            let why =
                unsafe message.map { unsafe String(cString: $0).trimmedLine.withoutQuotedPieces } ?? "out of memory"
            unsafe PQfreemem(message)
            throw PostgresError(.badInput, "bad Postgres connection string: \(why)")
        }
        defer { unsafe PQconninfoFree(options) }
        var settings: [String: String] = [:]
        var option = unsafe options
        while let keyword = unsafe option.pointee.keyword {
            if let value = unsafe option.pointee.val {
                unsafe settings[String(cString: keyword)] = String(cString: value)
            }
            unsafe option += 1
        }
        return settings
    }
}

extension Character {
    /// Several hosts have several ports, with commas between.
    fileprivate var isPort: Bool { isWholeNumber || self == "," }
}
