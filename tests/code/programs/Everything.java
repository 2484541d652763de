// Every way in which Java binds a name; compiled before and after a renaming of everything that is safe to rename.
// A lambda captures without a trace; a class would keep the variable's name in a synthetic field.
import java.io.IOException;
import java.io.Reader;
import java.io.StringReader;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BinaryOperator;
import java.util.function.Function;

public class Everything {
    private int value = 1;
    private final List<String> names = new ArrayList<>();
    static final Function<Integer, Integer> TWICE = number -> number * 2;

    static {
        int value = TWICE.apply(3);
        System.out.println(value);
    }

    enum Color { RED, GREEN { @Override int rank(int value) { return value + ordinal(); } }; int rank(int value) { return value; } }

    record Point(int x, int y) {
        Point { if (x < 0) throw new IllegalArgumentException("x"); }
        Point(int x) { this(x, 0); }
        int sum(int z) { return x + y + z; }
    }

    Everything(int value, String... names) {
        this.value = value;
        for (String name : names) this.names.add(name);
    }

    int shadows(int value) {
        int total = this.value + value;
        for (int names = 0; names < value; names++) total += names;
        for (String names : names) total += names.length();
        return total + names.size();
    }

    int value(int value) { return value > 0 ? value(value - 1) + this.value : value; }

    static <T extends Comparable<T>> T largest(List<? extends T> values, T start) {
        T found = start;
        for (T value : values) if (value.compareTo(found) > 0) found = value;
        return found;
    }

    int patterns(Object value) {
        if (value instanceof String text && text.length() > 1) return text.length();
        else if (value instanceof Integer text) return text;
        boolean empty = value instanceof List<?> list && list.isEmpty();
        if (!(value instanceof Long number)) return empty ? 1 : 0;
        return number.intValue();
    }

    int switches(Color color, int kind) {
        switch (kind) {
            case 1: int result = 2; break;
            case 2: result = 3; return result;
            default: result = 4;
        }
        final int other = 5;
        int found = switch (color) {
            case RED -> { int result2 = other; yield result2; }
            case GREEN -> other + 1;
        };
        return found;
    }

    String resources(String text) throws IOException {
        StringBuilder read = new StringBuilder();
        try (Reader reader = new StringReader(text); Reader second = new StringReader(text + value)) {
            for (int letter; (letter = reader.read()) >= 0; ) read.append((char) letter);
            read.append((char) second.read());
        } catch (IllegalStateException | IllegalArgumentException problem) {
            throw new IOException(problem);
        } finally {
            value++;
        }
        return read.toString();
    }

    int lambdas(int value) {
        BinaryOperator<Integer> add = (left, right) -> left + right + value;
        Function<String, Integer> size = String::length;
        Function<Integer, Function<Integer, Integer>> curried = first -> second -> first * second + value;
        Runnable nothing = () -> { int local = value; names.add("" + local); };
        nothing.run();
        return add.apply(size.apply("x"), curried.apply(1).apply(2));
    }

    int labels(int[][] grid) {
        int grid2 = 0;
        rows:
        for (int[] row : grid) {
            for (int cell : row) {
                if (cell < 0) continue rows;
                if (cell > 9) break rows;
                grid2 += cell;
            }
        }
        return grid2;
    }

    Object members(int size) {
        Object made = new Object() { int size = 3; @Override public String toString() { int twice = size * 2; return "" + twice; } };
        class Local { int size() { int size = names.size(); return size; } }
        return size > 0 ? made : new Local().size();
    }

    int sequence(Map<String, Integer> counts, int[]... rows) {
        int first = 1, second = first + 1, third[] = {first, second};
        Map<String, Integer> copy = new HashMap<>(counts);
        copy.merge("a", first, Integer::sum);
        do { int first2 = second--; third[0] += first2; } while (second > 0);
        while (second < 2) { final int step = 1; second += step; }
        synchronized (copy) { assert second > 0 : second; }
        return third[0] + rows[0][0] + copy.size();
    }

    public static void main(String[] args) throws IOException {
        Everything everything = new Everything(args.length, args);
        System.out.println(everything.shadows(2) + everything.value(3) + everything.resources("abc"));
        System.out.println(largest(List.of(1, 2), 0) + everything.patterns(args) + new Point(1).sum(2));
    }
}
