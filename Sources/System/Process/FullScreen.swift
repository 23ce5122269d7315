internal import CLinux
internal import Glibc

/// The terminal while a program has all of it: another screen, no cursor, keys as they are pressed and unechoed. Ctrl-C
/// and Ctrl-Z stay signals. What was there before comes back with `leave`, and when this object goes.
///
/// A signal whose default is to end the process would skip that, so its owner watches SIGINT, SIGTERM, SIGHUP and SIGTSTP.
@safe
public final class FullScreen {
    private var before = termios()
    private var isEntered = false

    /// Where the keys come from, for an event loop to watch.
    public var keyDescriptor: Int32 { STDIN_FILENO }

    /// `nil` when there is no terminal on both sides. Changes nothing yet.
    public init?() {
        guard isatty(STDOUT_FILENO) == 1, unsafe tcgetattr(STDIN_FILENO, &before) == 0 else { return nil }
    }

    deinit { leave() }

    /// Takes the terminal; again after the process was stopped, since the shell has changed it meanwhile.
    public func enter() {
        isEntered = true
        var settings = before
        settings.c_lflag &= ~tcflag_t(ICANON | ECHO)
        _ = unsafe tcsetattr(STDIN_FILENO, TCSANOW, &settings)
        Output.standard("\u{1b}[?1049h\u{1b}[?25l")
    }

    public func leave() {
        guard isEntered else { return }
        isEntered = false
        Output.standard("\u{1b}[?25h\u{1b}[?1049l")
        _ = unsafe tcsetattr(STDIN_FILENO, TCSANOW, &before)
    }

    /// Draws lines from the top, each in its row, and nothing below them.
    public func draw(_ lines: [String]) {
        Output.standard("\u{1b}[H" + lines.map { $0 + "\u{1b}[K" }.joined(separator: "\r\n") + "\u{1b}[J")
    }

    /// The next key's byte, when one has been pressed; `nil` when the terminal is gone.
    public func readKey() -> UInt8? {
        var byte: UInt8 = 0
        return unsafe read(STDIN_FILENO, &byte, 1) == 1 ? byte : nil
    }
}
