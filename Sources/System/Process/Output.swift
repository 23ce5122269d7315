internal import CLinux
internal import Glibc

/// Standard output and error: whole writes, so that lines of several threads do not mix.
public enum Output {
    /// Whether everything was written; a reader that has gone away is no error worth dying for.
    @discardableResult
    public static func write(_ bytes: Span<UInt8>, to descriptor: Int32 = 1) -> Bool {
        unsafe bytes.withUnsafeBytes { buffer in
            var sent = 0
            while sent < buffer.count {
                let count = unsafe Glibc.write(descriptor, buffer.baseAddress?.advanced(by: sent), buffer.count - sent)
                if count < 0 {
                    if errno == EINTR { continue }
                    return false
                }
                sent += count
            }
            return true
        }
    }

    @discardableResult
    public static func standard(_ text: String) -> Bool { write(Array(text.utf8).span, to: STDOUT_FILENO) }

    @discardableResult
    public static func error(_ text: String) -> Bool { write(Array(text.utf8).span, to: STDERR_FILENO) }
}

/// The terminal that a person looks at, where there is one.
public enum Terminal {
    public static var isOutputTerminal: Bool { isatty(STDOUT_FILENO) == 1 }
    public static var isErrorTerminal: Bool { isatty(STDERR_FILENO) == 1 }
    public static var isInputTerminal: Bool { isatty(STDIN_FILENO) == 1 }

    public static var size: (columns: Int, rows: Int)? {
        var size = winsize()
        guard unsafe fanout_winsize(STDOUT_FILENO, &size) == 0, size.ws_col > 0 else { return nil }
        return (Int(size.ws_col), Int(size.ws_row))
    }
}
